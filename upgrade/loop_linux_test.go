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
	client, backend, _ = l.open(t, link{})
	return client, backend
}

// open opens a tunnel on l.
func (l *loop) open(t *testing.T, k link) (client, backend *os.File, u *loopTunnel) {
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
	k.tunnel = &Tunnel{proxy: &Proxy{}}
	u = l.start(k, [2]base{{fd: ours[0]}, {fd: ours[1]}})
	t.Cleanup(func() {
		ends[0].Close()
		ends[1].Close()
		u.cut()
	})
	return ends[0], ends[1], u
}

// Once both ends have sent their close frames the first end ends a WebSocket: the loop doesn't
// wait for the other one, unless bytes of that are unread, which would make the end a reset.
func TestLoopParts(t *testing.T) {
	const fromClient, fromBackend = "\x88\x80key.", "\x88\x00"
	for _, tt := range []struct {
		name          string
		first, second Side
		more          string // behind the second close frame
		want          bool
	}{
		{"backend ends", SideClient, SideBackend, "", true},
		{"client ends", SideBackend, SideClient, "", true},
		{"backend ends, and the client goes on", SideClient, SideBackend, "more", false},
		{"client ends, and the backend goes on", SideBackend, SideClient, "more", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := handLoop(t)
			client, backend, u := l.open(t, link{websocket: true})
			ends := map[Side]*os.File{SideClient: client, SideBackend: backend}
			frames := map[Side]string{SideClient: fromClient, SideBackend: fromBackend}
			io.WriteString(ends[tt.first], frames[tt.first])
			l.poll(0)
			io.WriteString(ends[tt.second], frames[tt.second])
			raw, _ := ends[tt.second].SyscallConn()
			raw.Control(func(fd uintptr) { syscall.Shutdown(int(fd), syscall.SHUT_WR) })
			io.WriteString(ends[tt.first], tt.more)
			u.event(tt.second, syscall.EPOLLIN|syscall.EPOLLRDHUP)
			if u.gone != tt.want {
				t.Errorf("has ended: %v", u.gone)
			}
			got, err := io.ReadAll(ends[tt.first])
			if string(got) != frames[tt.second] || err != nil {
				t.Errorf("the other end: %q, %v", got, err)
			}
		})
	}
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
