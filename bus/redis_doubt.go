package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// doubt gives the connection that the link has deadAfter for an answer. Then it makes
// another one. Once that is answered and the old one still isn't, which heard reports, it
// calls fail, and leaves the new one in next. As long as Redis answers nowhere the old
// connection stays: when Redis only hangs for a while, all that is published meanwhile
// comes on it. All that ends with ctx, which is that of the old connection, and with trust.
func (l *redisLink) doubt(ctx context.Context, heard func() bool, fail context.CancelCauseFunc) (trust context.CancelFunc) {
	ctx, trust = context.WithCancel(ctx)
	go l.seekNext(ctx, heard, fail) // ends with ctx
	return trust
}

// seekNext makes connections after deadAfter, until one of them is answered.
func (l *redisLink) seekNext(ctx context.Context, heard func() bool, fail context.CancelCauseFunc) {
	for wait := deadAfter; ; wait = maxPause {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if next := l.answered(ctx); next != nil {
			l.replace(ctx, next, heard, fail)
		}
	}
}

// answered returns a connection on which Redis has answered, or nil.
func (l *redisLink) answered(ctx context.Context) *redis.PubSub {
	next, err := l.connect(ctx)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deadAfter)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { next.Close() })
	_, err = next.Receive(ctx)
	if !stop() || err != nil {
		next.Close()
		return nil
	}
	return next
}

// replace replaces the old connection by the next one, unless something comes on it.
func (l *redisLink) replace(ctx context.Context, next *redis.PubSub, heard func() bool, fail context.CancelCauseFunc) {
	select {
	case <-time.After(grace):
	case <-ctx.Done():
	}
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil || heard() { // run ends with ctx, and looks after next no more
		next.Close()
		return
	}
	l.next = next
	fail(fmt.Errorf("Redis hasn't answered for %v, but does on another connection", deadAfter))
}

// takeNext returns the connection that is answered already, or nil.
func (l *redisLink) takeNext() *redis.PubSub {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	next := l.next
	l.next = nil
	return next
}
