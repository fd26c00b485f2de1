package affinity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// Redis is a [Store] in a Redis that several replicas share. Each replica also
// keeps the pins that it uses in its own memory. Swap is a single Lua script that
// touches one key, so the replicas agree on each client's home even if they
// disagree about which backends are up.
//
// # Cost and staleness
//
// A Load takes one round trip, which also restarts the pin's lifetime. It takes
// none if Redis was asked for the pin within Fresh. So a Load may return a home
// that another replica has replaced, but no longer than Fresh ago. A Swap always
// asks Redis and returns the current home.
//
// # When Redis is slow or away
//
// Load and Swap return within Timeout. After a few failures in a row they stop
// asking, except for one call every 250 ms that finds out whether Redis is back.
// Until then pins live in the memory of each replica:
//
//   - Load returns what the memory has, however stale, without an error. It
//     returns an error for a client that the memory doesn't know.
//   - Swap moves the pin in the memory. It returns the current home together with
//     an error, as the other replicas don't know of the move.
//
// So no pin is lost and none moves back. When Redis is back, the next Load of a
// key writes to Redis what has happened meanwhile. If another replica has done so
// before, its pin stays.
//
// A Redis that has lost its data gets the pins back in the same way, from the
// replicas that know them, and so does one that was flushed. To forget a pin,
// delete it by Swap. As other replicas may still know the pin, Swap leaves a mark
// in Redis, which lasts for Idle, or for a day if Idle is never.
//
// In a Cluster all this holds for each primary by itself. While one is away, the
// pins of the others are in Redis as usual. If a primary is lost, so are the
// writes that it has acknowledged but its replicas don't have yet.
//
// After a few calls for which Redis hasn't answered in time, the idle connections of
// the Client are closed that don't answer a PING within half a second: a network that
// has dropped them all costs no more calls than one that has dropped one.
//
// Redis has no goroutine but for those PINGs. Its fields must not be changed once it
// is used, and it must not be copied.
type Redis struct {
	// Client connects to a single Redis, a Sentinel group or a Cluster, of
	// version 5 or later. The caller closes it.
	//
	// It needs ContextTimeoutEnabled: without it, go-redis ignores Timeout once
	// a command is sent. Set DialerRetries to 1, so that a refused connection
	// is an error at once. Set DialTimeout to one second rather than to the
	// five that are the default of go-redis: after a host has hung, its return
	// is noticed only when the dials under way have ended.
	Client redis.UniversalClient

	// Prefix is put before each key. "" means "limpet:pin:".
	Prefix string

	// Idle is the time after which an unused pin is forgotten. A tunnel of a
	// gateway uses its client's pin for as long as it is open. 0 means 24
	// hours, negative means never.
	//
	// A Load that is answered from memory doesn't restart the pin's lifetime in
	// Redis. Redis is asked every Fresh, or every quarter of Idle if that is
	// less: the other replicas may forget the pin by so much earlier than Idle.
	Idle time.Duration

	// Age is the time after which a pin is forgotten even if it is used,
	// counted by Redis' clock from when the client was bound to this backend. 0
	// means never.
	Age time.Duration

	// Timeout is how long each Load and Swap waits for Redis at most. 0 means
	// 50 ms.
	Timeout time.Duration

	// Size is the number of pins in the memory of this replica. Each takes
	// about 300 bytes beside its key and ID. 0 means 100,000. Negative means
	// that there is no memory: then each Load asks Redis, and fails if Redis
	// does.
	Size int

	// Fresh is how stale the result of a Load may be while Redis answers: a pin
	// is served from memory for so long, but never for more than a quarter of
	// Idle. 0 means one second. Negative means that each Load asks Redis, and
	// the memory is used only while Redis is away.
	Fresh time.Duration

	// Logger gets a warning when Redis fails and a note when it is back. Nil
	// means slog.Default().
	Logger *slog.Logger

	once    sync.Once
	invalid error
	conf    redisConf
	memory  redisMemory
	node    redisNode // the only server, or the Cluster as a whole
	nodes   sync.Map  // the primaries of a Cluster: *redisNode by address
	counts  redisCounts
	sweeper redisclient.Sweeper
}

// redisConf has the fields of a Redis, with the defaults filled in.
type redisConf struct {
	client         redis.UniversalClient
	prefix         string
	idle, age      time.Duration // 0: never
	timeout, fresh time.Duration
	log            *slog.Logger
}

// Load returns the backend of key as described at [Redis], and restarts its
// lifetime. With an error the backend is "".
func (r *Redis) Load(ctx context.Context, key string) (string, error) {
	if err := r.ready(ctx); err != nil {
		return "", fmt.Errorf("affinity: Redis: load: %w", err)
	}
	now := time.Now()
	pin, known := r.memory.get(key, now)
	if known && now.Sub(pin.asked) < r.conf.fresh {
		r.counts.memory.Add(1)
		return pin.backend, nil
	}
	var stored redisPin // what Redis has now
	var err error
	pending := len(pin.replaces) > 0
	if pending {
		stored, err = r.swap(ctx, key, pin.replaces, true, pin)
	} else {
		stored, err = r.load(ctx, key, pin)
	}
	if err == nil {
		r.memory.learn(key, stored)
		return stored.backend, nil
	}
	if pending && !errors.Is(err, errCircuitOpen) {
		r.memory.unanswered(key, pin.backend)
	}
	// A parallel call may have moved the pin meanwhile.
	if pin, known = r.memory.get(key, time.Now()); known {
		return pin.backend, nil
	}
	return "", fmt.Errorf("affinity: Redis: load: %w", err)
}

// Swap replaces the backend of key in Redis, as [Store] says. If Redis doesn't
// answer, Swap does so in the memory of this replica, and returns what is there
// now together with an error.
func (r *Redis) Swap(ctx context.Context, key, old, new string) (string, error) {
	if err := r.ready(ctx); err != nil {
		return "", fmt.Errorf("affinity: Redis: swap: %w", err)
	}
	replaces := []string{old}
	pin, known := r.memory.get(key, time.Now())
	if known = known && pin.backend == old; known {
		replaces = append(replaces, pin.replaces...)
	}
	stored, err := r.swap(ctx, key, replaces, known, redisPin{backend: new})
	if err != nil {
		now := r.memory.swap(key, old, new)
		if !errors.Is(err, errCircuitOpen) {
			r.memory.unanswered(key, new)
		}
		return now, fmt.Errorf("affinity: Redis: swap: %w", err)
	}
	r.memory.learn(key, stored)
	return stored.backend, nil
}

// Touch restarts the lifetime of the pin of key if its backend is this one. It asks
// Redis, unless Redis was asked within the last eighth of Idle, and writes nothing else
// there: the next Load restores a pin that Redis has lost. If Redis doesn't answer,
// Touch restarts the lifetime in the memory of this replica, and returns an error only if
// the memory doesn't know the pin.
func (r *Redis) Touch(ctx context.Context, key, backend string) error {
	if err := r.ready(ctx); err != nil {
		return fmt.Errorf("affinity: Redis: touch: %w", err)
	}
	now := time.Now()
	pin, known := r.memory.touch(key, backend, now)
	fresh := pin.backend == backend && now.Sub(pin.asked) < r.conf.idle/8
	if fresh || r.conf.idle == 0 || len(pin.replaces) > 0 { // Redis doesn't have a pending pin
		return nil
	}
	stored, err := r.touch(ctx, key, backend)
	switch {
	case err == nil && stored.backend == backend:
		stored.asked = now // a swap after memory.touch is newer
		r.memory.learn(key, stored)
	case err == nil:
		// The answer isn't learnt: Redis has restarted no lifetime, and a Load would take
		// the pin for one whose lifetime was restarted just now.
	case !known:
		return fmt.Errorf("affinity: Redis: touch: %w", err)
	}
	return nil
}

// TouchEvery returns a quarter of Idle, or 0 if that is never.
func (r *Redis) TouchEvery() time.Duration { return r.idle() / 4 }

// idle returns Idle with its default filled in, or 0 for never.
func (r *Redis) idle() time.Duration {
	if r.Idle == 0 {
		return defaultIdle
	}
	return max(0, r.Idle)
}

// Validate refuses a missing Client, a Client without ContextTimeoutEnabled,
// and a negative Age or Timeout.
func (r *Redis) Validate() error {
	if err := redisclient.Check(r.Client); err != nil {
		return fmt.Errorf("affinity: Redis: %w", err)
	}
	if r.Age < 0 || r.Timeout < 0 {
		return fmt.Errorf("affinity: Redis: age %v or timeout %v is negative", r.Age, r.Timeout)
	}
	return nil
}

// ready returns the error with which a call fails before it has begun.
func (r *Redis) ready(ctx context.Context) error {
	r.once.Do(r.init)
	if r.invalid != nil {
		return r.invalid
	}
	return ctx.Err()
}

func (r *Redis) init() {
	if r.invalid = r.Validate(); r.invalid != nil {
		return
	}
	c := redisConf{client: r.Client, prefix: r.Prefix, idle: r.idle(), age: r.Age, timeout: r.Timeout, fresh: r.Fresh, log: r.Logger}
	if c.prefix == "" {
		c.prefix = "limpet:pin:"
	}
	if c.timeout == 0 {
		c.timeout = 50 * time.Millisecond
	}
	if c.fresh == 0 {
		c.fresh = time.Second
	}
	if c.idle > 0 {
		c.fresh = min(c.fresh, c.idle/4)
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	r.conf = c
	r.node.since = time.Now()
	r.memory = redisMemory{idle: c.idle, age: c.age}
	if r.Size >= 0 {
		r.memory.pins = newShards[*redisPin](r.Size)
	}
}
