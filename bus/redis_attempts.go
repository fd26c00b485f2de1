package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// attempts makes the attempts to send a message to Redis.
type attempts struct{ sweeper redisclient.Sweeper }

// try calls send until it returns nil or timeout is over, or ctx ends. An error ends it,
// unless Redis says that it can't do anything for now, or it hasn't answered and again
// returns true. Each attempt may take a third of timeout: one on a dead connection must not
// take all the time that there is.
func (a *attempts) try(ctx context.Context, client redis.UniversalClient, timeout time.Duration, send func(context.Context) error, again func() bool) error {
	for end := time.Now().Add(timeout); ; {
		began := time.Now()
		attempt, cancel := context.WithDeadline(ctx, earlier(end, began.Add(timeout/3)))
		err := send(attempt)
		cancel()
		if err == nil {
			return nil
		}
		redisclient.Reload(client)
		a.failed(client, began, timeout/3)
		if !isPassing(err) && (isFinal(client, err) || !again()) {
			return err
		}
		select {
		case <-time.After(min(retryPause/4, time.Until(end))):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if !time.Now().Before(end) {
			return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
	}
}

// failed looks after the idle connections of the client when an attempt has failed that
// began at a time, and had a limit. One that has failed at once says nothing about them.
func (a *attempts) failed(client redis.UniversalClient, began time.Time, limit time.Duration) {
	if time.Since(began) >= min(limit, deadAfter/4) {
		a.sweeper.Sweep(client)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// isPassing reports whether Redis has refused a command, or a connection, because of a state
// that passes.
func isPassing(err error) bool {
	return redis.IsLoadingError(err) || redis.IsReadOnlyError(err) ||
		redis.IsMasterDownError(err) || redis.IsClusterDownError(err) || redis.IsTryAgainError(err) ||
		redis.IsMaxClientsError(err)
}

// isFinal reports whether an error is an answer of Redis, such as that to a wrong password,
// or says that the client is closed. A client of a Cluster closes those of nodes that leave.
func isFinal(client redis.UniversalClient, err error) bool {
	var answer redis.Error
	_, single := client.(*redis.Client)
	return errors.As(err, &answer) || single && errors.Is(err, redis.ErrClosed)
}
