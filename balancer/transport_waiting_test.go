package balancer_test

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
)

// Thousands of long polls wait at the same time. Each has its goroutine, but no buffer, and
// its stack is smaller than what dialling needs.
func TestWaitingHoldsLittle(t *testing.T) {
	const requests = 200
	asked := make(chan struct{})
	s := reach(t, raw(t, func(c net.Conn) {
		request := make([]byte, 256)
		for {
			if _, err := c.Read(request); err != nil {
				return
			}
			asked <- struct{}{}
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, requests)
	begin := func(n int) {
		for range n {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
			go func() {
				if _, err := s.RoundTripTo(s.Backend, req, nil); err == nil {
					t.Error("answered")
				}
				ended <- struct{}{}
			}()
		}
		for range n { // all at once, so that each has a buffer of its own to send its head
			<-asked
		}
	}
	begin(10)
	heap, stacks := memory()
	begin(requests - 10)
	heapThen, stacksThen := memory()
	cancel()
	for range requests {
		<-ended
	}
	// The server's half of a connection, in this process too, takes its part of both.
	if each := int(heapThen-heap) / (requests - 10); each > 4<<10 {
		t.Errorf("a request that waits holds %d bytes on the heap", each)
	}
	info, _ := debug.ReadBuildInfo()
	raced := slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) // its frames are larger
	if each := int(stacksThen-stacks) / (requests - 10); each > 8<<10 && !raced {
		t.Errorf("a request that waits holds %d bytes of stacks", each)
	}
}

// memory returns how many bytes the heap and the stacks have. Stacks are read first, since
// the garbage collector halves those of which little is used.
func memory() (heap, stacks uint64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	stacks = m.StackInuse
	runtime.GC()
	runtime.GC() // what pools hold is gone only now
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, stacks
}
