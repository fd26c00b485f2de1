// Package redisclient is what Limpet's packages have in common about the go-redis
// clients that their callers hand to them.
package redisclient

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// Check returns an error for a client that is missing, or that ignores the time
// limits of its callers. A client of a type that go-redis doesn't know is trusted
// to keep them.
//
// Without ContextTimeoutEnabled go-redis goes by its own timeouts (of five seconds,
// several times) once a command is sent, whatever the context of the call says, so
// a Redis that hangs would hold up requests and publishers.
func Check(client redis.UniversalClient) error {
	missing, limited := false, true
	switch c := client.(type) {
	case nil:
		missing = true
	case *redis.Client:
		if missing = c == nil; !missing {
			limited = c.Options().ContextTimeoutEnabled
		}
	case *redis.ClusterClient:
		if missing = c == nil; !missing {
			limited = c.Options().ContextTimeoutEnabled
		}
	case *redis.Ring:
		if missing = c == nil; !missing {
			limited = c.Options().ContextTimeoutEnabled
		}
	}
	switch {
	case missing:
		return errors.New("no Client: it needs one of go-redis, with ContextTimeoutEnabled")
	case !limited:
		return errors.New("the Client ignores time limits, so a Redis that hangs would hold up its callers: " +
			"set ContextTimeoutEnabled to true in its options (and DialerRetries to 1)")
	}
	return nil
}

// CheckPubSub is Check for a client that publishes and subscribes. It also refuses
// a Ring: those are several Redis servers that know nothing of each other, and a
// subscriber on one isn't reached by a publisher on another.
func CheckPubSub(client redis.UniversalClient) error {
	if _, ok := client.(*redis.Ring); ok {
		return errors.New("the Client is a Ring, whose servers pass no messages to each other: use a client of one Redis, a Sentinel group or a Cluster")
	}
	return Check(client)
}

// Once is a command that go-redis sends at most once. By default it sends a
// command again when the connection breaks before the answer has come, although
// Redis may have carried it out.
type Once struct{ *redis.Cmd }

// NoRetry is asked by go-redis before it sends a command again.
func (Once) NoRetry() bool { return true }

// Reload makes a client of a Redis Cluster ask, in the background, which node has
// which slots; other clients are left alone. It is called after an error: go-redis
// by itself may learn of a failover a minute later.
func Reload(client redis.UniversalClient) {
	if c, ok := client.(interface{ ReloadState(context.Context) }); ok {
		c.ReloadState(context.Background())
	}
}

// Ended is a context that has ended, for calls that mustn't wait.
var Ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
