package hub_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/redistest"
)

// counter is a connection that costs nothing, with a frame that is used.
type counter struct {
	left *atomic.Int64 // messages that have not come yet
	done chan struct{}
}

func (c *counter) Send(_ context.Context, messages []*hub.Frame) error {
	for _, f := range messages {
		_ = f.Bytes()
	}
	if c.left.Add(-int64(len(messages))) == 0 {
		c.done <- struct{}{}
	}
	return nil
}

func (c *counter) Close(context.Context, int, string) error { return nil }

// One message to 10,000 members of a room. B/member is what is allocated for
// each of them.
func BenchmarkHubFanOut(b *testing.B) {
	const members = 10_000
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprint(size, "B"), func(b *testing.B) {
			h := startHub(b, nil, nil)
			c := &counter{left: new(atomic.Int64), done: make(chan struct{})}
			for range members {
				connectConn(b, h, c, "", "room")
			}
			payload := make([]byte, size)
			send := func() {
				c.left.Store(members)
				if err := h.Send(b.Context(), inRooms("room"), hub.Binary(payload)); err != nil {
					b.Fatal(err)
				}
				<-c.done
			}
			send() // the members' goroutines have run once
			b.ReportAllocs()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				send()
			}
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/members, "B/member")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/members, "ns/member")
		})
	}
}

// The same over real sockets, on loopback: one member of each client connection.
func BenchmarkHubFanOutSockets(b *testing.B) {
	const clients = 500
	h := startHub(b, nil, nil)
	s := serveHub(b, h, &hub.HandlerOptions{Member: func(*http.Request) (hub.MemberOptions, error) {
		return hub.MemberOptions{Rooms: []string{"room"}}, nil
	}})
	var left atomic.Int64
	done := make(chan struct{})
	for range clients {
		c := dial(b, s, "/", nil)
		go func() { // ends with c
			for {
				if _, _, err := c.Read(context.Background()); err != nil {
					return
				}
				if left.Add(-1) == 0 {
					done <- struct{}{}
				}
			}
		}()
	}
	for h.Stats().Members < clients {
	}
	payload := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		left.Store(clients)
		if err := h.Send(b.Context(), inRooms("room"), hub.Binary(payload)); err != nil {
			b.Fatal(err)
		}
		<-done
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/clients, "ns/member")
}

// Joining and leaving by many goroutines at once: one room for all, or one for
// each, which others are in as well, or where it is alone, so that the bus is
// told each time.
func BenchmarkHubJoinLeave(b *testing.B) {
	for _, tt := range []struct {
		name        string
		one, filled bool
	}{{"one room", true, true}, {"many rooms", false, true}, {"new rooms", false, false}} {
		b.Run(tt.name, func(b *testing.B) {
			h := startHub(b, nil, nil)
			var next atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				room := "room"
				if !tt.one {
					room = fmt.Sprint("room", next.Add(1))
				}
				if tt.filled {
					connect(b, h, "", room)
				}
				m, _ := connect(b, h, "")
				for pb.Next() {
					if err := m.Join(b.Context(), room); err != nil {
						b.Error(err)
					}
					m.Leave(room)
				}
			})
		})
	}
}

// From Send on one node to a member's connection on another.
func BenchmarkHubLatency(b *testing.B) {
	memory := &bus.Memory{}
	here, there := startHub(b, memory, nil), startHub(b, memory, nil)
	c := &counter{left: new(atomic.Int64), done: make(chan struct{})}
	connectConn(b, there, c, "", "room")
	payload := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		c.left.Store(1)
		if err := here.Send(b.Context(), inRooms("room"), hub.Binary(payload)); err != nil {
			b.Fatal(err)
		}
		<-c.done
	}
}

// 5,000 members that join rooms of their own over Redis, all at once and one after the
// other.
func BenchmarkHubJoinRedis(b *testing.B) {
	const members = 5000
	for _, at := range []int{members, 100, 1} {
		b.Run(fmt.Sprint(at, " at once"), func(b *testing.B) {
			h := startHub(b, &bus.Redis{Client: redistest.Start(b).Client(b)}, nil)
			m, _ := connect(b, h, "")
			var next atomic.Int64
			for b.Loop() {
				var joining sync.WaitGroup
				for range at {
					joining.Go(func() {
						for range members / at {
							if err := m.Join(b.Context(), fmt.Sprint(next.Add(1))); err != nil {
								b.Error(err)
							}
						}
					})
				}
				joining.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/members, "us/join")
		})
	}
}
