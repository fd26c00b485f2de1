package upgrade

import (
	"bytes"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

func TestLoopTunnelSize(t *testing.T) {
	if size := unsafe.Sizeof(loopTunnel{}); size > 80 {
		t.Errorf("%d bytes for each tunnel that is at rest", size)
	}
}

// handLoop is a loop whose events are dealt with when a test says so.
func handLoop(t *testing.T) *loop {
	l, err := newLoop(&loops{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.epoll.Close() })
	return l
}

// tunnel opens a tunnel on l that is no WebSocket.
func (l *loop) tunnel(t *testing.T) (client, backend *os.File) {
	var ends [2]*os.File
	var ours [2]int
	for i := range ends {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		ends[i], ours[i] = os.NewFile(uintptr(pair[0]), "end"), pair[1]
		ends[i].SetDeadline(time.Now().Add(10 * time.Second))
	}
	l.tunnels.Add(1)
	u := l.start(link{tunnel: &Tunnel{proxy: &Proxy{}}}, [2]base{{fd: ours[0]}, {fd: ours[1]}})
	t.Cleanup(func() {
		ends[0].Close()
		ends[1].Close()
		u.cut()
	})
	return ends[0], ends[1]
}

// However much one tunnel has to say, the others have theirs said in the same round.
func TestLoopFairness(t *testing.T) {
	l := handLoop(t)
	client, loud := l.tunnel(t)
	chunk := bytes.Repeat([]byte("x"), chunkSize)
	loud.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	waiting := 0
	for {
		n, err := loud.Write(chunk)
		if waiting += n; err != nil {
			break
		}
	}
	quiet := make([]*os.File, 50)
	for i := range quiet {
		to, from := l.tunnel(t)
		io.WriteString(from, "hi")
		quiet[i] = to
	}
	l.poll(0)
	for _, end := range quiet {
		b := make([]byte, 3)
		if n, err := end.Read(b); string(b[:n]) != "hi" {
			t.Fatalf("read %q, %v", b[:n], err)
		}
	}
	got := 0
	for buf := make([]byte, 1<<20); ; {
		client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := client.Read(buf)
		if got += n; err != nil {
			break
		}
	}
	if got == 0 || got > chunkSize {
		t.Errorf("%d of %d bytes passed at once", got, waiting)
	}
}
