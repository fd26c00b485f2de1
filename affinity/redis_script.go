package affinity

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// redisScriptSource loads, touches or swaps the pin at KEYS[1]. It returns the pin's age in
// milliseconds, a space and its backend, as they are afterwards. Its arguments are
//
//	idle    the lifetimes in milliseconds, 0 for none
//	age
//	new     the backend of the caller
//	since   for how many milliseconds the client has been bound to new
//	lost    for a swap: "lost" or ""; for a touch: "touch"
//	old...  only for a swap
//
// A swap puts new in place of any of old. "lost" means that the caller knows a pin
// at this key: then new is also put there if the key has no value at all, as after
// Redis has lost its data.
//
// A load has the first four arguments only, and restarts the lifetime of the pin.
// new is the backend that the caller knows, which is put there if the key has no
// value at all.
//
// A touch restarts the lifetime of the pin if its backend is new, and writes nothing else.
//
// The value is the time at which the client was bound, by Redis' clock, a space and
// the backend. A value without a backend marks a deleted pin. Without the mark, a
// replica that still knows the pin would take it for lost and restore it.
const redisScriptSource = `
local idle, age = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function left(born)
	if age == 0 then return idle end
	local left = born + age - now
	if idle > 0 and idle < left then left = idle end
	return left
end

local born, backend = now, nil
local value = redis.call('GET', KEYS[1])
if value then
	local at, there = string.match(value, '^(%d+) (.*)$')
	if at and (age == 0 or left(tonumber(at)) > 0) then
		born, backend = tonumber(at), there
	end
end

local new, since = ARGV[3], tonumber(ARGV[4])
local load, there = #ARGV == 4, backend or ''
local write
if load then
	write = not backend and new ~= ''
else
	write = not backend and ARGV[5] == 'lost'
	for i = 6, #ARGV do write = write or there == ARGV[i] end
end
if new ~= '' and age > 0 and since >= age then write = false end

if write then
	born, backend = now - since, new
	local ttl = left(born)
	if new == '' then ttl = idle > 0 and idle or 86400000 end
	value = string.format('%.0f %s', born, backend)
	if ttl > 0 then
		redis.call('SET', KEYS[1], value, 'PX', ttl)
	else
		redis.call('SET', KEYS[1], value)
	end
elseif (load or ARGV[5] == 'touch' and there == new) and there ~= '' and left(born) > 0 then
	redis.call('PEXPIRE', KEYS[1], left(born))
end
return string.format('%.0f %s', now - born, backend or '')
`

var redisScript = redis.NewScript(redisScriptSource)

// load asks Redis for the pin of key and restarts its lifetime there. known is
// the pin that this replica knows, or the zero redisPin.
func (r *Redis) load(ctx context.Context, key string, known redisPin) (redisPin, error) {
	cmd := r.command(ctx, key, known.backend, known.age())
	return r.ask(ctx, key, cmd, cmd)
}

// touch makes Redis restart the lifetime of the pin of key if its backend is this one.
func (r *Redis) touch(ctx context.Context, key, backend string) (redisPin, error) {
	cmd := r.command(ctx, key, backend, 0, "touch")
	return r.ask(ctx, key, cmd, cmd)
}

// swap makes Redis replace any of the backends old by new. If this replica
// knows the pin (known), new is also stored if Redis has lost it.
func (r *Redis) swap(ctx context.Context, key string, old []string, known bool, new redisPin) (redisPin, error) {
	lost := ""
	if known {
		lost = "lost"
	}
	args := []any{new.backend, new.age(), lost}
	for _, backend := range old {
		args = append(args, backend)
	}
	cmd := r.command(ctx, key, args...)
	// go-redis must not send it again by itself: a swap that was made twice
	// could undo one that came in between.
	return r.ask(ctx, key, cmd, redisclient.Once{Cmd: cmd})
}

// command returns the call of the script with these arguments behind the
// lifetimes.
func (r *Redis) command(ctx context.Context, key string, args ...any) *redis.Cmd {
	head := []any{"evalsha", redisScript.Hash(), 1, r.conf.prefix + key, milliseconds(r.conf.idle), milliseconds(r.conf.age)}
	cmd := redis.NewCmd(ctx, append(head, args...)...)
	cmd.SetFirstKeyPos(3)
	return cmd
}

// ask sends cmd unless the circuit is open, and returns the pin in its answer.
// sent is cmd or a wrapper around it.
func (r *Redis) ask(ctx context.Context, key string, cmd *redis.Cmd, sent redis.Cmder) (pin redisPin, err error) {
	err = r.guarded(ctx, r.conf.prefix+key, func(ctx context.Context) error {
		asked := time.Now()
		err := r.conf.client.Process(ctx, sent)
		if redis.HasErrorPrefix(err, "NOSCRIPT") { // this Redis has not seen the script yet
			cmd.Args()[0], cmd.Args()[1] = "eval", redisScriptSource
			err = r.conf.client.Process(ctx, sent)
		}
		if err == nil {
			pin, err = parseRedisPin(cmd, asked)
		}
		return err
	})
	if err == errCircuitOpen {
		r.counts.skipped.Add(1)
		return pin, err
	}
	r.counts.calls.Add(1)
	if err != nil && ctx.Err() == nil { // otherwise the caller gave up
		r.counts.errors.Add(1)
	}
	return pin, err
}

// parseRedisPin returns the pin in the script's answer to a call that was made
// at the time asked.
func parseRedisPin(cmd *redis.Cmd, asked time.Time) (redisPin, error) {
	text, err := cmd.Text()
	if err != nil {
		return redisPin{}, err
	}
	age, backend, _ := strings.Cut(text, " ")
	ms, err := strconv.ParseInt(age, 10, 64)
	if err != nil {
		return redisPin{}, fmt.Errorf("script answered with %q", text)
	}
	// The age counts from before the call, so that a pin never seems younger or
	// fresher than it is.
	now := time.Now()
	return redisPin{
		backend: backend, born: asked.Add(-time.Duration(ms) * time.Millisecond),
		used: now, asked: asked, learnt: now,
	}, nil
}

// milliseconds rounds d down to the unit of Redis. A d that isn't 0 gives 1 at
// least, as 0 means never.
func milliseconds(d time.Duration) int64 {
	if ms := d.Milliseconds(); ms > 0 || d == 0 {
		return ms
	}
	return 1
}
