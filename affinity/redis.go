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

// Redis is a [Store] in a Redis that several replicas share, with a memory of
// its own in front. Swap is one Lua script that touches one key, so the
// replicas agree on each client's home whatever each sees of the backends.
//
// # What it costs and how stale it is
//
// A Load is one round trip, which slides the pin's lifetime too, or none for a
// pin of which Redis was asked within Fresh. So a Load may return a home that
// another replica has replaced up to Fresh ago; a Swap never goes by the memory
// and tells the true one.
//
// # When Redis is slow or gone
//
// Load and Swap return within Timeout, and after a few failures in a row they
// don't ask any more, except for one call every 250 ms that finds out whether
// Redis is back. Until then pins live in the memory of each replica:
//
//   - Load returns what the memory has, however stale, and no error. It returns
//     an error for a client that the memory doesn't know.
//   - Swap moves the pin in the memory, and returns what is there now together
//     with an error: the other replicas haven't heard of it.
//
// So no pin is lost and none moves back. When Redis is back, the Load that
// follows for a key takes what happened in the meantime there. If another
// replica was first, its pin stands. A Redis that has lost its data gets pins
// back the same way, from the replicas that know them, and so does one that was
// flushed: to forget a pin, delete it by Swap. That leaves a mark for the time
// of Idle (a day if that is never), as other replicas may still know the pin.
//
// All this is true for each primary of a Cluster by itself: while one is gone,
// the pins of the others are in Redis as ever. A write that a primary has
// acknowledged is lost with it if its replicas don't have it yet.
//
// It starts no goroutine. Fields must not be changed once it is used, and a
// Redis must not be copied.
type Redis struct {
	// Client reaches a single Redis, a Sentinel group or a Cluster of version
	// 5 or later. It needs ContextTimeoutEnabled, or go-redis ignores Timeout
	// once a command is sent. A refused connection is noticed at once only
	// with DialerRetries of 1, and a host that comes back after it hung is
	// noticed when the dials under way end: a DialTimeout of one second is
	// better than the five that are go-redis' default. The client is the
	// caller's to close.
	Client redis.UniversalClient

	// Prefix goes before each key. "" means "limpet:pin:".
	Prefix string

	// Idle is the time after which an unused pin is forgotten. 0 means 24
	// hours, negative means never. What a replica answers from its memory is
	// told to Redis every quarter of Idle at least, and every Fresh if that is
	// less: by that much earlier than Idle the others may forget the pin.
	Idle time.Duration

	// Age is the time after which a pin is forgotten however much it is used,
	// counted by Redis' clock from when the client was bound to this backend.
	// 0 means never.
	Age time.Duration

	// Timeout bounds the time that each Load and Swap waits for Redis. 0 means
	// 50 ms.
	Timeout time.Duration

	// Size is the number of pins in the memory in front, about 300 bytes each
	// beside key and ID. 0 means 100,000. Negative means that there is none:
	// then each Load asks Redis, and fails when Redis does.
	Size int

	// Fresh is how stale a Load may be while Redis answers: for so long a pin
	// is served from memory, but never for more than a quarter of Idle. 0
	// means one second. Negative means that Redis is always asked, and the
	// memory serves only while Redis is away.
	Fresh time.Duration

	// Logger is told when Redis goes and when it is back. Nil means
	// slog.Default().
	Logger *slog.Logger

	once    sync.Once
	invalid error
	conf    redisConf
	memory  redisMemory
	node    redisNode // the only one, or what is known of a Cluster
	nodes   sync.Map  // of a Cluster: *redisNode by address
}

// redisConf is what the fields mean, with their defaults.
type redisConf struct {
	client         redis.UniversalClient
	prefix         string
	idle, age      time.Duration // 0: never
	timeout, fresh time.Duration
	log            *slog.Logger
}

// Load returns the backend of key as described at [Redis], and slides its
// lifetime. After an error the backend is "".
func (r *Redis) Load(ctx context.Context, key string) (string, error) {
	if err := r.ready(ctx); err != nil {
		return "", fmt.Errorf("affinity: Redis: load: %w", err)
	}
	now := time.Now()
	pin, known := r.memory.get(key, now)
	if known && now.Sub(pin.asked) < r.conf.fresh {
		return pin.backend, nil
	}
	var heard redisPin
	var err error
	unsaid := len(pin.replaces) > 0
	if unsaid {
		heard, err = r.swap(ctx, key, pin.replaces, true, pin)
	} else {
		heard, err = r.load(ctx, key, pin)
	}
	if err == nil {
		r.memory.learn(key, heard)
		return heard.backend, nil
	}
	if unsaid && !errors.Is(err, errCircuitOpen) {
		r.memory.unanswered(key, pin.backend)
	}
	// A parallel call may have moved it.
	if pin, known = r.memory.get(key, time.Now()); known {
		return pin.backend, nil
	}
	return "", fmt.Errorf("affinity: Redis: load: %w", err)
}

// Swap replaces the backend of key as [Store] says, in Redis. If Redis can't be
// asked it does so in memory, and returns what is there now and an error.
func (r *Redis) Swap(ctx context.Context, key, old, new string) (string, error) {
	if err := r.ready(ctx); err != nil {
		return "", fmt.Errorf("affinity: Redis: swap: %w", err)
	}
	replaces := []string{old}
	pin, known := r.memory.get(key, time.Now())
	if known = known && pin.backend == old; known {
		replaces = append(replaces, pin.replaces...)
	}
	heard, err := r.swap(ctx, key, replaces, known, redisPin{backend: new})
	if err != nil {
		now := r.memory.swap(key, old, new)
		if !errors.Is(err, errCircuitOpen) {
			r.memory.unanswered(key, new)
		}
		return now, fmt.Errorf("affinity: Redis: swap: %w", err)
	}
	r.memory.learn(key, heard)
	return heard.backend, nil
}

// Validate refuses a missing Client, one without ContextTimeoutEnabled, and a
// negative Age or Timeout.
func (r *Redis) Validate() error {
	if err := redisclient.Check(r.Client); err != nil {
		return fmt.Errorf("affinity: Redis: %w", err)
	}
	if r.Age < 0 || r.Timeout < 0 {
		return fmt.Errorf("affinity: Redis: age %v or timeout %v is negative", r.Age, r.Timeout)
	}
	return nil
}

// ready returns what keeps a call from being made at all.
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
	c := redisConf{client: r.Client, prefix: r.Prefix, idle: r.Idle, age: r.Age, timeout: r.Timeout, fresh: r.Fresh, log: r.Logger}
	if c.prefix == "" {
		c.prefix = "limpet:pin:"
	}
	if c.idle == 0 {
		c.idle = 24 * time.Hour
	}
	c.idle = max(0, c.idle)
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
