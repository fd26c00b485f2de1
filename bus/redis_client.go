package bus

import (
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// NewRedisClient returns a go-redis client of one Redis server, with the options
// that [Redis], [Streams], affinity.Redis and package socketio need to keep their
// time limits while the server hangs or is away: ContextTimeoutEnabled, one attempt
// to dial, and a DialTimeout of one second unless the URL says otherwise.
//
// The URL is what [redis.ParseURL] takes: redis://:password@host:6379/0, rediss://
// for TLS, or unix:///path. The client connects when it is first used, and is the
// caller's to close.
//
// For a Sentinel group or a Cluster set the same options by hand:
//
//	redis.NewClusterClient(&redis.ClusterOptions{
//		Addrs: addrs, ContextTimeoutEnabled: true, DialerRetries: 1, DialTimeout: time.Second,
//	})
func NewRedisClient(url string) (*redis.Client, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		// Neither err nor url may be shown: they may hold a password.
		return nil, errors.New("bus: want a URL such as redis://:password@host:6379/0 for Redis, with no unknown option")
	}
	opts.ContextTimeoutEnabled = true
	opts.DialerRetries = 1
	if opts.DialTimeout == 0 {
		opts.DialTimeout = time.Second
	}
	return redis.NewClient(opts), nil
}
