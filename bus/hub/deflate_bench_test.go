package hub_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/process"
)

// record returns about n bytes of JSON as applications send it, always the same.
func record(n int) []byte {
	type entry struct {
		ID    int     `json:"id"`
		Name  string  `json:"name"`
		Price float64 `json:"price"`
		Text  string  `json:"text"`
	}
	words := []string{"order", "shipped", "customer", "waits", "new", "address", "paid", "today", "returned", "box"}
	r := rand.New(rand.NewPCG(1, 2))
	var list []entry
	for {
		e := entry{ID: r.IntN(1e6), Name: fmt.Sprintf("user-%x", r.Uint32()), Price: float64(r.IntN(1e5)) / 100}
		for range 5 {
			e.Text += words[r.IntN(len(words))] + " "
		}
		list = append(list, e)
		if b, _ := json.Marshal(list); len(b) >= n {
			return b[:n]
		}
	}
}

// One message to 1,000 members over real sockets on loopback, compressed or not. B/member is
// what each of them is sent, and cpu-ns/member the processor time with that of the clients, who
// read and don't decompress.
func BenchmarkHubDeflate(b *testing.B) {
	const clients = 1000
	for _, size := range []int{100, 256, 1024, 10_240} {
		for _, compress := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dB/compress=%v", size, compress), func(b *testing.B) {
				h := startHub(b, nil, nil)
				s := serveHub(b, h, &hub.HandlerOptions{Compress: compress, Member: func(*http.Request) (hub.MemberOptions, error) {
					return hub.MemberOptions{Rooms: []string{"room"}}, nil
				}})
				payload := record(size)
				first, in, _ := offering(b, s, deflate)
				for inRoom(h) == 0 {
				}
				send(b, h, inRooms("room"), string(payload))
				each := 2 + len(readFrame(b, in).payload)
				if each > 127 {
					each += 2
				}
				first.Close()
				for inRoom(h) > 0 {
				}

				var come, want atomic.Int64
				done := make(chan struct{})
				for range clients {
					c, _, _ := offering(b, s, deflate)
					go countBytes(c, &come, &want, done) // ends with c
				}
				for inRoom(h) < clients {
				}
				before := process.CPU()
				b.ReportAllocs()
				for b.Loop() {
					want.Add(int64(each * clients))
					send(b, h, inRooms("room"), string(payload))
					<-done
				}
				b.ReportMetric(float64(process.CPU()-before)/float64(b.N)/clients, "cpu-ns/member")
				b.ReportMetric(float64(each), "B/member")
			})
		}
	}
}

// countBytes counts what comes, and tells when all that is wanted has.
func countBytes(c net.Conn, come, want *atomic.Int64, done chan<- struct{}) {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if come.Add(int64(n)) == want.Load() {
			done <- struct{}{}
		}
	}
}
