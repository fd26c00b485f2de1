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

// redisScriptSource loads or swaps the pin at KEYS[1] and returns its age in
// milliseconds, a space and its backend. Its arguments are
//
//	idle, age   the lifetimes in milliseconds, 0 for none
//	new, since  put this backend there, for so many milliseconds already,
//	lost        if this is "lost" and nothing is there at all,
//	old...      or if one of these is there
//
// and for a load, which slides the lifetime, only the first four: new is what
// the caller takes the backend to be, which is put there if nothing is.
//
// The value is the time at which the client was bound, by Redis' clock, a space
// and the backend. One without a backend marks a pin that was deleted, lest a
// replica that still knows it takes it for lost.
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
elseif load and there ~= '' and left(born) > 0 then
	redis.call('PEXPIRE', KEYS[1], left(born))
end
return string.format('%.0f %s', now - born, backend or '')
`

var redisScript = redis.NewScript(redisScriptSource)

// load asks Redis for the pin of key and slides its lifetime. known is what
// this replica takes it to be.
func (r *Redis) load(ctx context.Context, key string, known redisPin) (redisPin, error) {
	cmd := r.command(ctx, key, known.backend, known.age())
	return r.ask(ctx, key, cmd, cmd)
}

// swap has Redis replace one of old, or nothing if it is known to have lost the
// pin, by new.
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
	// A swap that was made twice could undo one that came in between.
	return r.ask(ctx, key, cmd, redisclient.Once{Cmd: cmd})
}

func (r *Redis) command(ctx context.Context, key string, args ...any) *redis.Cmd {
	head := []any{"evalsha", redisScript.Hash(), 1, r.conf.prefix + key, milliseconds(r.conf.idle), milliseconds(r.conf.age)}
	cmd := redis.NewCmd(ctx, append(head, args...)...)
	cmd.SetFirstKeyPos(3)
	return cmd
}

// ask sends cmd, wrapped as sent, if the circuit lets it.
func (r *Redis) ask(ctx context.Context, key string, cmd *redis.Cmd, sent redis.Cmder) (pin redisPin, err error) {
	err = r.guarded(ctx, r.conf.prefix+key, func(ctx context.Context) error {
		asked := time.Now()
		err := r.conf.client.Process(ctx, sent)
		if redis.HasErrorPrefix(err, "NOSCRIPT") { // this Redis doesn't know it yet
			cmd.Args()[0], cmd.Args()[1] = "eval", redisScriptSource
			err = r.conf.client.Process(ctx, sent)
		}
		if err == nil {
			pin, err = parseRedisPin(cmd, asked)
		}
		return err
	})
	return pin, err
}

// parseRedisPin returns what the script answered that was sent at the time asked.
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
	// Counted from before the call, a pin never seems younger or fresher than it is.
	told := time.Now()
	return redisPin{
		backend: backend, born: asked.Add(-time.Duration(ms) * time.Millisecond),
		used: told, asked: asked, told: told,
	}, nil
}

// milliseconds rounds to what Redis counts in. What isn't 0 stays so.
func milliseconds(d time.Duration) int64 {
	if ms := d.Milliseconds(); ms > 0 || d == 0 {
		return ms
	}
	return 1
}
