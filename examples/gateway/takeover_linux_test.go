package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/nodetest"
	"github.com/limpet-go/limpet/internal/process"
)

var (
	tunnels   = flag.Int("tunnels", 100, "number of WebSockets that are handed over")
	takeovers = flag.Int("takeovers", 4, "how often they are, in a row")
)

// A stream checks the numbers of the messages that one end gets.
type stream struct {
	next   uint64
	last   time.Time
	paused time.Duration // the longest time between two
}

// take checks a message.
func (s *stream) take(b []byte) error {
	if len(b) < 8 || binary.BigEndian.Uint64(b) != s.next {
		return fmt.Errorf("message %x came where number %d was due", b[:min(8, len(b))], s.next)
	}
	if !s.last.IsZero() {
		s.paused = max(s.paused, time.Since(s.last))
	}
	s.last = time.Now()
	s.next++
	return nil
}

// exchange sends numbered messages at both ends of a WebSocket, independently of each other, and
// checks those that come, until stop is closed. Then it sends an empty one, and waits for that of
// the other end.
func exchange(conn *websocket.Conn, pause time.Duration, stop <-chan struct{}) (*stream, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*process.Patience)
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for n := uint64(0); ; n++ {
			select {
			case <-stop:
				sent <- conn.Write(ctx, websocket.MessageBinary, nil)
				return
			case <-tick.C:
			}
			b := binary.BigEndian.AppendUint64(make([]byte, 0, 1000), n)
			if err := conn.Write(ctx, websocket.MessageBinary, b[:8+n*31%900]); err != nil {
				sent <- fmt.Errorf("message %d: %w", n, err)
				return
			}
		}
	}()
	s := &stream{}
	for {
		_, b, err := conn.Read(ctx)
		if err == nil && len(b) > 0 {
			err = s.take(b)
		}
		if err != nil {
			cancel()
			return s, fmt.Errorf("after %d messages: %w", s.next, err)
		}
		if len(b) == 0 {
			return s, <-sent
		}
	}
}

// A counter is a backend whose WebSockets exchange numbers with their clients, and whose other
// pages answer at once.
type counter struct {
	*nodetest.Node
	stop  chan struct{}
	open  atomic.Int64
	fails atomic.Pointer[error]
}

func startCounter(t *testing.T, pause time.Duration) *counter {
	c := &counter{stop: make(chan struct{})}
	c.Node = nodetest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, strings.Repeat("an answer ", 100))
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(-1)
		c.open.Add(1)
		defer c.open.Add(-1)
		if r.URL.Path == "/echo" {
			for {
				kind, b, err := conn.Read(context.Background())
				if err != nil || conn.Write(context.Background(), kind, b) != nil {
					return
				}
			}
		}
		if _, err := exchange(conn, pause, c.stop); err != nil {
			err = fmt.Errorf("the backend: %w", err)
			c.fails.CompareAndSwap(nil, &err)
		}
	}))
	return c
}

// successor starts a gateway that takes the place of before, and waits until it has.
func successor(t *testing.T, before *process.Process, program string, args ...string) *process.Process {
	t.Helper()
	next := gatewayOf(t, program, nil, args...)
	address(t, next)
	if code := before.End(t); code != 0 {
		t.Errorf("the predecessor's exit code is %d", code)
	}
	t.Log(before.AwaitLine(t, "handed over"))
	return next
}

// anotherBuild builds this program in another way than the test was.
func anotherBuild(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "gateway")
	if out, err := exec.Command("go", "build", "-tags", "limpet_ordinary_syscalls", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// Real processes of two builds hand WebSockets over to each other, several times in a row.
// Nothing is closed, lost or doubled: not on tunnels with traffic in both directions, not on
// those whose client reads slowly or is within a frame, and no plain request fails. The last
// process has no more descriptors than the first one had, and no more memory but what the
// garbage collector does with it.
func TestTakeover(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	programs := []string{anotherBuild(t), exe}                                  // in turn
	pause := max(50*time.Millisecond, time.Duration(*tunnels)*time.Second/4000) // 8,000 messages a second at most
	b := startCounter(t, pause)
	args := []string{"-listen", "127.0.0.1:0", "-backend", "a=" + b.URL, "-takeover", filepath.Join(t.TempDir(), "takeover"), "-drain", "1s"}
	p := gateway(t, nil, args...)
	addr := address(t, p)
	t.Log("pid", p.PID())

	stop := make(chan struct{})
	streams := make([]*stream, *tunnels)
	var all sync.WaitGroup
	for i := range streams {
		conn, _, err := websocket.Dial(t.Context(), "ws://"+addr+"/count", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		conn.SetReadLimit(-1)
		all.Go(func() {
			var err error
			if streams[i], err = exchange(conn, pause, stop); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	slow := newSlowClient(t, addr)
	begun := newRawClient(t, addr)
	begun.send(frameOf("half of this comes before, and half of it behind")[:20])
	first, memory := descriptors(t, p), resident(t, p)

	var asked atomic.Int64
	for i := range 4 {
		all.Go(func() { keepAsking(t, addr, i%2 == 0, stop, &asked) })
	}
	for i := range 2 * ((*takeovers + 1) / 2) { // the last one is of the same build as the first
		was := asked.Load()
		p = successor(t, p, programs[i%2], args...)
		for asked.Load() < was+20 {
			time.Sleep(time.Millisecond)
		}
	}
	if n := b.open.Load(); n != int64(*tunnels)+2 {
		t.Errorf("%d tunnels are open", n)
	}
	begun.send(frameOf("half of this comes before, and half of it behind")[20:])
	begun.expect("half of this comes before, and half of it behind")
	slow.finish()
	close(b.stop)
	close(stop)
	all.Wait()
	if err := b.fails.Load(); err != nil {
		t.Error(*err)
	}
	var pauses []time.Duration
	messages := uint64(0)
	for _, s := range streams {
		if s != nil {
			pauses, messages = append(pauses, s.paused), messages+s.next
		}
	}
	slices.Sort(pauses)
	t.Logf("%d messages to %d clients, %d requests; the longest pause of a client, at the median %v, of the 99th in 100 %v",
		messages, len(pauses), asked.Load(), pauses[len(pauses)/2], pauses[len(pauses)*99/100])
	if last := descriptors(t, p); last > first+20 {
		t.Errorf("the last process has %d descriptors, the first one had %d", last, first)
	}
	if last := resident(t, p); last > 2*memory+64<<20 {
		t.Errorf("the last process has %d MiB, the first one had %d", last>>20, memory>>20)
	}
	p.Signal(t, syscall.SIGTERM)
	if code := p.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// keepAsking makes plain requests until stop is closed.
func keepAsking(t *testing.T, addr string, keep bool, stop <-chan struct{}, asked *atomic.Int64) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}, Timeout: process.Patience}
	defer client.CloseIdleConnections()
	for {
		select {
		case <-stop:
			return
		default:
		}
		// A POST isn't repeated by the client.
		res, err := client.Post("http://"+addr+"/", "text/plain", strings.NewReader("a body"))
		if err != nil {
			t.Errorf("request %d: %v", asked.Load(), err)
			return
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || len(b) != 1000 {
			t.Errorf("request %d: %s, %d bytes, %v", asked.Load(), res.Status, len(b), err)
			return
		}
		asked.Add(1)
		time.Sleep(time.Millisecond)
	}
}

// descriptors returns how many files p has open.
func descriptors(t *testing.T, p *process.Process) int {
	t.Helper()
	files, err := os.ReadDir("/proc/" + strconv.Itoa(p.PID()) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// resident returns the bytes of memory that p has for itself.
func resident(t *testing.T, p *process.Process) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.Atoi(string(regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(status)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// A rawClient is one of a WebSocket that sends bytes.
type rawClient struct {
	t    *testing.T
	conn net.Conn
}

func newRawClient(t *testing.T, addr string) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * process.Patience))
	c := &rawClient{t, conn}
	c.send([]byte("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	var head []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b...) {
		if _, err := conn.Read(b); err != nil {
			t.Fatalf("%q, %v", head, err)
		}
	}
	return c
}

func (c *rawClient) send(b []byte) {
	if _, err := c.conn.Write(b); err != nil {
		c.t.Error(err)
	}
}

// frameOf returns a frame of a client with a short text, whose mask is zero.
func frameOf(text string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

// expect reads a frame with a short text.
func (c *rawClient) expect(text string) {
	c.t.Helper()
	b := make([]byte, 2+len(text))
	if _, err := io.ReadFull(c.conn, b); err != nil || string(b[2:]) != text {
		c.t.Errorf("%q, %v, want %q", b, err, text)
	}
}

// A slowClient has sent more than all buffers hold, and reads nothing until it finishes.
type slowClient struct {
	*rawClient
	sent chan struct{}
}

const (
	slowFrames = 200
	slowSize   = 60_000
)

func newSlowClient(t *testing.T, addr string) *slowClient {
	c := &slowClient{newRawClient(t, addr), make(chan struct{})}
	go func() {
		defer close(c.sent)
		for i := range slowFrames {
			b := binary.BigEndian.AppendUint16([]byte{0x82, 0x80 | 126}, slowSize)
			b = append(b, 0, 0, 0, 0)
			b = append(b, strings.Repeat(string(rune('a'+i%26)), slowSize)...)
			if _, err := c.conn.Write(b); err != nil {
				return
			}
		}
	}()
	return c
}

// finish reads all.
func (c *slowClient) finish() {
	b := make([]byte, 4+slowSize)
	for i := range slowFrames {
		if _, err := io.ReadFull(c.conn, b); err != nil || string(b[4:]) != strings.Repeat(string(rune('a'+i%26)), slowSize) {
			c.t.Errorf("the slow client's frame %d: %.10q, %v", i, b, err)
			return
		}
	}
	<-c.sent
}

// On SIGHUP a gateway starts its successor itself, and tells the service manager which process
// to watch.
func TestReload(t *testing.T) {
	t.Parallel()
	b := exampletest.StartBackend(t, "a", nil)
	dir := t.TempDir()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	mainPID := func() int {
		t.Helper()
		manager.SetReadDeadline(time.Now().Add(process.Patience))
		b := make([]byte, 1000)
		n, err := manager.Read(b)
		pid, ok := strings.CutPrefix(string(b[:n]), "READY=1\nMAINPID=")
		number, bad := strconv.Atoi(pid)
		if err != nil || !ok || bad != nil {
			t.Fatalf("the manager is told %q, %v", b[:n], err)
		}
		return number
	}
	p := gateway(t, []string{"NOTIFY_SOCKET=" + manager.LocalAddr().String()},
		"-listen", "127.0.0.1:0", "-backend", b.Spec(), "-takeover", filepath.Join(dir, "takeover"), "-admin", "127.0.0.1:0")
	addr := address(t, p)
	if pid := mainPID(); pid != p.PID() {
		t.Errorf("process %d is the main one, not %d", pid, p.PID())
	}
	p.Signal(t, syscall.SIGHUP)
	next := mainPID()
	defer syscall.Kill(next, syscall.SIGKILL)
	for end := time.Now().Add(process.Patience); ; time.Sleep(10 * time.Millisecond) {
		// The successor has the pipe that p's end is noticed by otherwise.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the predecessor doesn't end")
		}
	}
	if next == p.PID() {
		t.Error("the process is its own successor")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if code, text := ask(t, client, "http://"+addr); code != 200 {
		t.Errorf("%d %q", code, text)
	}
}

// A reload that comes while a deploy replaces the program fails, and the next one doesn't.
func TestReloadAgain(t *testing.T) {
	t.Parallel()
	b := exampletest.StartBackend(t, "a", nil)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "gateway")
	install := func() {
		t.Helper()
		if err := os.Symlink(exe, program); err != nil {
			t.Fatal(err)
		}
	}
	install()
	cmd := exec.Command(program, "-listen", "127.0.0.1:0", "-backend", b.Spec(), "-takeover", filepath.Join(dir, "takeover"), "-drain", "1s")
	cmd.Env = append(os.Environ(), "LIMPET_TEST_GATEWAY=1", "LIMPET_KEYS=")
	p := process.Start(t, cmd)
	address(t, p)

	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	p.Signal(t, syscall.SIGHUP)
	p.AwaitLine(t, "no successor could be started")
	install()
	p.Signal(t, syscall.SIGHUP)
	pid, err := strconv.Atoi(regexp.MustCompile(`\d+$`).FindString(p.AwaitLine(t, "a successor starts")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	p.AwaitLine(t, "handed over")
}
