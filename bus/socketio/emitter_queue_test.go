package socketio_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// A queued Emitter sends everything in its order.
func TestEmitterQueued(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	for name, adapter := range map[string]socketio.Adapter{
		"Legacy": socketio.Legacy{}, "PubSub": socketio.PubSub{}, "Sharded": socketio.Sharded{}, "Streams": socketio.Streams{},
	} {
		t.Run(name, func(t *testing.T) {
			m, leave := member(t, client, adapter, socketio.ClusterOptions{})
			defer leave()
			e, err := socketio.NewEmitter(client, adapter)
			if err != nil {
				t.Fatal(err)
			}
			const n = 1000
			queued := e.Queued(n, func(err error) { t.Error(err) })
			target := queued.To("r1")
			for i := range n {
				if err := target.Emit(t.Context(), fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := queued.Flush(patient(t)); err != nil {
				t.Error(err)
			}
			for next, done := 0, patient(t).Done(); ; {
				m.mu.Lock()
				actions, changed := m.done["go1"], m.changed
				m.mu.Unlock()
				for ; next < len(actions); next++ {
					if !isEvent(fmt.Sprint(next))(actions[next]) {
						t.Fatalf("action %d is %v", next, actions[next])
					}
				}
				if next == n {
					break
				}
				select {
				case <-changed:
				case <-done:
					t.Fatalf("%d events, want %d", next, n)
				}
			}
		})
	}
}

// Too many messages are refused, and those that can't be sent are told.
func TestEmitterQueueFails(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	e, err := socketio.NewEmitter(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Flush(t.Context()); err != nil {
		t.Errorf("Flush of one that isn't queued: %v", err)
	}
	server.Kill()
	var failed atomic.Int32
	queued := e.Queued(5, func(err error) {
		if !strings.Contains(err.Error(), "socketio: ") {
			t.Error(err)
		}
		failed.Add(1)
	})
	for i := range 10 {
		if err := queued.Emit(t.Context(), "ev"); errors.Is(err, socketio.ErrQueueFull) != (i >= 5) || (err != nil) != (i >= 5) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := queued.Flush(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Flush after ctx has ended: %v", err)
	}
	if err := queued.Emit(ended, "ev"); !errors.Is(err, context.Canceled) {
		t.Errorf("Emit after ctx has ended: %v", err)
	}
	if err := queued.Flush(patient(t)); err != nil || failed.Load() != 5 {
		t.Errorf("%v, %d have failed", err, failed.Load())
	}
	server.Restart(t)
	if err := queued.Emit(t.Context(), "ev"); err != nil {
		t.Error(err)
	}
	if err := queued.Flush(patient(t)); err != nil || failed.Load() != 5 {
		t.Errorf("%v, %d have failed", err, failed.Load())
	}
}

// BenchmarkEmit is a loop of Emit, as it is and queued. The processor's time is that of this
// process.
func BenchmarkEmit(b *testing.B) {
	client := redistest.Start(b).Client(b)
	e, err := socketio.NewEmitter(client, nil)
	if err != nil {
		b.Fatal(err)
	}
	queued := e.Queued(1000, func(err error) { b.Error(err) })
	for name, to := range map[string]*socketio.Emitter{"waits": e, "queued": queued} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := process.CPU()
			for b.Loop() {
				for errors.Is(to.Emit(b.Context(), "ev", "hello"), socketio.ErrQueueFull) {
					_ = to.Flush(b.Context())
				}
			}
			_ = to.Flush(b.Context())
			b.ReportMetric(float64(process.CPU()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
