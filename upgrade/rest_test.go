package upgrade_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/upgrade"
)

// A tunnel that waits in the middle of a frame holds no buffer: a client could
// have any number of them so, for a byte each.
func TestMemoryWithinFrames(t *testing.T) {
	long := string(frame(0x82, strings.Repeat("x", 60_000), true))
	for _, s := range setups {
		for name, begin := range map[string]string{
			"first byte": "\x81", "header": long[:8], "part": long[:1000], "behind a message": string(text("x", true)) + "\x81",
		} {
			t.Run(s.name+"/"+name, func(t *testing.T) {
				h, ends := backends(t)
				r := newRig(t, s, &upgrade.Proxy{}, h)
				const n = 50
				var clients, behind [n]*end
				for i := range n {
					clients[i], behind[i] = r.client(), wait(t, ends)
				}
				before := heap()
				for i := range n {
					clients[i].send([]byte(begin))
					behind[i].expect(begin)
				}
				if each := (heap() - before) / n; each > 8<<10 {
					t.Errorf("%d bytes of heap for each", each)
				}
				runtime.KeepAlive(r)
			})
		}
	}
}

// heap returns what is in use, without what pools keep.
func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
