package redisclient_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// server answers the commands of a client in the place of Redis. It is a hook of the client.
type server struct {
	// answer is called for what is sent together. It may block, and set errors. With an
	// error of its own nothing is sent.
	answer func(cmds []redis.Cmder) error

	mu   sync.Mutex
	sent []string // the data of what was answered; that of one pipeline in one string
}

func (s *server) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *server) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		if err := s.serve([]redis.Cmder{cmd}); err != nil {
			cmd.SetErr(err)
		}
		return cmd.Err()
	}
}

func (s *server) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		if err := s.serve(cmds); err != nil {
			return err
		}
		for _, cmd := range cmds {
			if err := cmd.Err(); err != nil {
				return err
			}
		}
		return nil
	}
}

func (s *server) serve(cmds []redis.Cmder) error {
	if s.answer != nil {
		if err := s.answer(cmds); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var sent []string
	for _, cmd := range cmds {
		if cmd.Err() == nil {
			sent = append(sent, data(cmd))
		}
	}
	s.sent = append(s.sent, strings.Join(sent, " "))
	return nil
}

// data has the data of a command written, as go-redis does to send it.
func data(cmd redis.Cmder) string {
	args := cmd.Args()
	data, _ := args[len(args)-1].(*redisclient.Payload).MarshalBinary()
	return string(data)
}

func (s *server) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%q", s.sent)
}

// rig is a Publisher with the server that it sends to.
type rig struct {
	redisclient.Publisher
	server server
	client *redis.Client
}

const limit = 3 * time.Second

func newRig(t *testing.T, answer func([]redis.Cmder) error) *rig {
	r := &rig{server: server{answer: answer}, client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true, MaxRetries: -1})}
	t.Cleanup(func() { r.client.Close() })
	r.client.AddHook(&r.server)
	return r
}

func (r *rig) publish(ctx context.Context, data []byte, repeat bool) error {
	_, err := r.Do(ctx, r.client, limit, &redisclient.Message{Args: []any{"publish", "topic"}, Key: 1, Data: data, Repeat: repeat})
	return err
}

// start publishes in a goroutine, and returns once the message is under way or waits.
func (r *rig) start(ctx context.Context, data string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.publish(ctx, []byte(data), false) }()
	synctest.Wait()
	return done
}

// blocked returns an answer that waits for a value, and the channel for it.
func blocked() (answer func([]redis.Cmder) error, proceed chan error) {
	proceed = make(chan error)
	return func([]redis.Cmder) error { return <-proceed }, proceed
}

// What comes while a message is under way is sent together, in its order, and no more of it
// than a batch may have.
func TestPublisherBatches(t *testing.T) {
	large := strings.Repeat("x", 100<<10)
	for _, tt := range []struct {
		name      string
		published []string
		want      []string
	}{
		{"alone", []string{"1"}, []string{"1"}},
		{"two", []string{"1", "2"}, []string{"1", "2"}},
		{"several", []string{"1", "2", "3", "4"}, []string{"1", "2 3 4"}},
		{"many bytes", []string{"1", large, large, large}, []string{"1", large + " " + large, large}},
		{"too many bytes", []string{"1", large + large + large, "3"}, []string{"1", large + large + large, "3"}},
		{"many", make([]string, 1+256+1), []string{"", strings.Repeat(" ", 255), ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, proceed := blocked()
				r := newRig(t, answer)
				var results []<-chan error
				for _, data := range tt.published {
					results = append(results, r.start(t.Context(), data))
				}
				for range tt.want {
					proceed <- nil
				}
				for i, result := range results {
					if err := <-result; err != nil {
						t.Errorf("message %d: %v", i, err)
					}
				}
				if got := r.server.log(); got != fmt.Sprintf("%q", tt.want) {
					t.Errorf("sent %.200s, want %.200q", got, tt.want)
				}
			})
		})
	}
}

// An error in the middle of a batch concerns one message, and that of a hook all that were
// written.
func TestPublisherErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused, hook := errors.New("refused"), errors.New("the limiter's")
		first := true
		proceed := make(chan struct{})
		r := newRig(t, func(cmds []redis.Cmder) error {
			if first {
				first = false
				<-proceed
				return nil
			}
			for _, cmd := range cmds {
				switch data(cmd) {
				case "3":
					cmd.SetErr(refused)
				case "hook":
					return hook
				}
			}
			return nil
		})
		wants := map[string]error{"1": nil, "2": nil, "3": refused, "4": nil}
		results := map[string]<-chan error{}
		for _, data := range []string{"1", "2", "3", "4"} {
			results[data] = r.start(t.Context(), data)
		}
		close(proceed)
		for data, result := range results {
			if err := <-result; !errors.Is(err, wants[data]) {
				t.Errorf("message %s: %v, want %v", data, err, wants[data])
			}
		}
		first, proceed = true, make(chan struct{})
		before := r.start(t.Context(), "5")
		a, b := r.start(t.Context(), "hook"), r.start(t.Context(), "6")
		close(proceed)
		if err := <-before; err != nil {
			t.Error(err)
		}
		if err := <-a; !errors.Is(err, hook) {
			t.Errorf("%v, want the error of the hook", err)
		}
		if err := <-b; err != nil { // it wasn't written, so it is sent again
			t.Error(err)
		}
	})
}

// A publisher whose context ends while it waits leaves, and its message isn't sent. One whose
// message is under way with others leaves, too, and may use its buffer again.
func TestPublisherLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, proceed := blocked()
		r := newRig(t, answer)
		one := r.start(t.Context(), "1")
		ctx, cancel := context.WithCancel(t.Context())
		two := r.start(ctx, "2")
		three := r.start(t.Context(), "3")
		cancel()
		if err := <-two; !errors.Is(err, context.Canceled) {
			t.Errorf("2: %v", err)
		}
		proceed <- nil // 1
		synctest.Wait()
		proceed <- nil // 3
		four := r.start(t.Context(), "4")
		ctx, cancel = context.WithCancel(t.Context())
		buffer := []byte("5")
		five := make(chan error)
		go func() { five <- r.publish(ctx, buffer, false) }()
		synctest.Wait()
		proceed <- nil // 4
		synctest.Wait()
		cancel()
		if err := <-five; !errors.Is(err, context.Canceled) {
			t.Errorf("5: %v", err)
		}
		buffer[0] = '!'
		proceed <- nil // 5
		for _, result := range []<-chan error{one, three, four} {
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if got, want := r.server.log(), `["1" "3" "4" "5"]`; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	})
}

// A message is sent again only if it wasn't sent, or may be repeated, or Redis says that it
// can't for now. Nobody waits for longer than the time limit.
func TestPublisherAttempts(t *testing.T) {
	broken := errors.New("the connection broke")
	for _, tt := range []struct {
		name     string
		write    bool // the command is written before the error
		err      error
		repeat   bool
		attempts int // that fail
		want     error
	}{
		{"no connection", false, broken, false, 5, nil},
		{"no connection for long", false, broken, false, 1 << 20, context.DeadlineExceeded},
		{"broken", true, broken, false, 1, broken},
		{"broken, may be repeated", true, broken, true, 5, nil},
		{"passes", true, redisError("LOADING Redis is loading the dataset in memory"), false, 5, nil},
		{"refused", true, redisError("NOPERM"), true, 1, redisError("NOPERM")},
		{"closed", false, redis.ErrClosed, true, 1, redis.ErrClosed},
	} {
		for _, batch := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, batch=%v", tt.name, batch), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					proceed := make(chan struct{})
					failed := 0
					r := newRig(t, func(cmds []redis.Cmder) error {
						if args := cmds[0].Args(); fmt.Sprint(args[len(args)-1]) == "first" {
							<-proceed
							return nil
						}
						if failed == tt.attempts {
							return nil
						}
						failed++
						if tt.write {
							data(cmds[0])
						}
						return tt.err
					})
					if batch {
						first := r.start(t.Context(), "first")
						defer func() { <-first }()
					}
					began := time.Now()
					done := make(chan error)
					go func() { done <- r.publish(t.Context(), []byte("1"), tt.repeat) }()
					synctest.Wait()
					close(proceed)
					if err := <-done; !errors.Is(err, tt.want) {
						t.Errorf("%v, want %v", err, tt.want)
					}
					if took := time.Since(began); took > limit {
						t.Errorf("it took %v", took)
					}
					if tt.attempts < 1<<20 && failed != tt.attempts {
						t.Errorf("%d attempts have failed, want %d", failed, tt.attempts)
					}
				})
			})
		}
	}
}

// Those that wait behind a message that hangs don't wait for longer than their time limit.
func TestPublisherHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, proceed := blocked()
		r := newRig(t, answer)
		began := time.Now()
		one := r.start(t.Context(), "1")
		if err := <-r.start(t.Context(), "2"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("2: %v", err)
		}
		if took := time.Since(began); took != limit {
			t.Errorf("it took %v, want %v", took, limit)
		}
		proceed <- nil
		<-one
		if got, want := r.server.log(), `["1"]`; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	})
}

type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

// Messages that are sent together are sent in their order, and again only as one alone.
func TestPublisherDoAll(t *testing.T) {
	broken := errors.New("the connection broke")
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		r := newRig(t, func(cmds []redis.Cmder) error {
			switch attempts++; attempts {
			case 1: // no connection
				return broken
			case 2: // it breaks after 2
				for _, cmd := range cmds[2:4] {
					data(cmd)
				}
				for _, cmd := range cmds[2:] {
					cmd.SetErr(broken)
				}
			}
			return nil
		})
		var all []*redisclient.Message
		for i := range 6 {
			all = append(all, &redisclient.Message{Args: []any{"publish", "topic"}, Key: 1, Data: []byte(fmt.Sprint(i)), Repeat: i == 3})
		}
		var failed []error
		r.DoAll(r.client, limit, all, func(err error) { failed = append(failed, err) })
		if len(failed) != 1 || failed[0] != broken {
			t.Errorf("failed: %v", failed)
		}
		if got, want := r.server.log(), `["0 1" "3 4 5"]`; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
		r.server.answer = func([]redis.Cmder) error { return broken }
		began := time.Now()
		failed = nil
		r.DoAll(r.client, limit, all, func(err error) { failed = append(failed, err) })
		if took := time.Since(began); len(failed) != 6 || took > limit {
			t.Errorf("%v after %v", failed, took)
		}
	})
}
