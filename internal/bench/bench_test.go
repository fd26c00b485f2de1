//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/meter"
)

// TestMain lets the test binary be the other processes of a benchmark.
func TestMain(m *testing.M) {
	if os.Getenv(role) != "" {
		if err := act(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	leaktest.Main(m)
}

// small is a bench that is over at once.
func small(t *testing.T) *bench {
	return &bench{dir: t.TempDir(), sizes: sizes{
		Time: 50 * time.Millisecond, Clients: 4, Quiet: 10, Rate: 1000, Idle: 30, Members: 20, Messages: 2, Polls: 20, Hold: 20 * time.Millisecond,
	}}
}

// running starts two backends for the test.
func running(t *testing.T, b *bench) []string {
	t.Helper()
	nodes, addrs, err := b.backends(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nodes.Stop)
	return addrs
}

// A whole run, with what is sure to be installed.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	jsonFile, svgFile := filepath.Join(dir, "json"), filepath.Join(dir, "svg")
	var tables bytes.Buffer
	err := run(t.Context(), &tables, []string{"-peers", "Limpet,Limpet cookie,ReverseProxy", "-rounds", "1", "-time", "50ms", "-settle", "0s", "-clients", "4",
		"-paced-tunnels", "10", "-rate", "1000", "-idle", "30", "-members", "20", "-messages", "2", "-polls", "20", "-hold", "20ms", "-scaling=false", "-json", jsonFile, "-svg", svgFile})
	if err != nil {
		t.Fatalf("%v\n%s", err, &tables)
	}
	var got report
	text, err := os.ReadFile(jsonFile)
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := 2 * len(scenes)
	for _, c := range scenes {
		if c.pins { // else Limpet is measured with its default affinity only
			want++
		}
	}
	if len(got.Runs) != want || len(got.Medians) != want {
		t.Errorf("%d results and %d medians, want %d", len(got.Runs), len(got.Medians), want)
	}
	for _, r := range got.Runs {
		if r.Operations == 0 || r.CPU <= 0 || r.Throughput <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Memory <= 0 {
			t.Errorf("nothing was measured: %+v", r)
		}
		if !strings.Contains(tables.String(), fmt.Sprintf("\n| %s |", r.Case)) && !strings.HasSuffix(r.Case, "idle") {
			t.Errorf("no table has %q", r.Case)
		}
	}
	chart, err := os.ReadFile(svgFile)
	if err != nil {
		t.Fatal(err)
	}
	if bars := parsed(t, chart).all(func(e element) bool { return e.Class == "ours" }); len(bars) != len(scenes)+3 {
		t.Errorf("the chart has %d bars of Limpet's, want one for each case and two for idle tunnels, over TLS too, and waiting polls", len(bars))
	}
}

// What can't work is said before anything is measured.
func TestWrongArguments(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"case", []string{"-cases", "GET,PUT"}, `no "PUT"`},
		{"gateway", []string{"-peers", "apache"}, `no "apache"`},
		{"scaling of others", []string{"-peers", "ReverseProxy"}, "-scaling is about Limpet"},
		{"number", []string{"-rounds", "0"}, "wrong arguments"},
		{"file", []string{"-svg", filepath.Join(t.TempDir(), "missing", "svg")}, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := run(t.Context(), io.Discard, tt.args); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func TestScaling(t *testing.T) {
	b := small(t)
	peers, err := allPeers(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	addrs := running(t, b)
	s, err := scale(1, func() (*scaling, error) {
		return b.scaling(t.Context(), peers[0], peers[len(peers)-1], addrs, []int{2, 5}, []int{3, 30})
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Requests) != 2 || len(s.Messages) != 2 || len(s.Baseline) != 2 || len(s.Backends) != 2 {
		t.Errorf("%+v", s)
	}
	for _, r := range slices.Concat(s.Requests, s.Messages, s.Baseline) {
		if r.Operations == 0 || r.CPU <= 0 || r.Errors > 0 {
			t.Errorf("%+v", r)
		}
	}
	for _, c := range s.Backends {
		if c.Pick <= 0 || c.Sweep <= 0 || c.Kept <= 0 {
			t.Errorf("%+v", c)
		}
	}
}

// relay is a gateway that does something to what backends send. nil cuts the
// connection. It ends with the test.
func relay(t *testing.T, backend string, do func([]byte) []byte) (port int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			node, err := net.Dial("tcp", backend)
			if err != nil {
				client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(node, client)
				node.Close()
			}()
			go func() {
				defer client.Close()
				for p := make([]byte, 64<<10); ; {
					n, err := node.Read(p)
					if err != nil {
						return
					}
					out := do(p[:n])
					if out == nil {
						return
					}
					_, _ = client.Write(out)
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// What a bad gateway does wrong is an error of the case.
func TestErrorsAreSeen(t *testing.T) {
	b := small(t)
	addrs := running(t, b)
	replace := func(old, new string) func([]byte) []byte {
		return func(p []byte) []byte { return bytes.ReplaceAll(p, []byte(old), []byte(new)) }
	}
	for _, tt := range []struct {
		name, scene string
		do          func([]byte) []byte
		says        string // "": no error
	}{
		{"good gateway", "polling GET", replace("", ""), ""},
		{"good tunnel", "open-echo-close", replace("", ""), ""},
		{"status", "GET", replace("200 OK", "503 No"), "503"},
		{"body", "polling POST", replace("ok from", "no from"), "want"},
		{"a byte of many", "1 MiB", replace("scar", "star"), "wrong"},
		{"length", "GET", replace("Length: 27", "Length: 26"), "26 bytes, want 27"},
		{"too much", "GET", replace("}", "} "), "more than the answer"},
		{"cut", "1 MiB", func(p []byte) []byte {
			if bytes.Contains(p, []byte("HTTP/1.1")) {
				return p
			}
			return nil
		}, "lost the connection"},
		{"another backend", "polling GET", alternating(" from 0", " from 1"), "of another backend"},
		{"handshake", "echo 64 B", replace("101 Switching", "200 Switching"), "handshake"},
		{"echo", "echo 4 KiB", replace("limpets", "limpits"), "unexpected bytes"},
		{"lost tunnels", "paced", func(p []byte) []byte {
			if bytes.Contains(p, []byte("limpets")) {
				return nil
			}
			return p
		}, "tunnel lost"},
		{"closed without close frame", "open-echo-close", func(p []byte) []byte {
			if bytes.Equal(p, closeIn) {
				return nil
			}
			return p
		}, "tunnel lost"},
		{"broadcast", "broadcast", replace("tide is coming", "tide was coming"), "unexpected bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := newLoad(t.Context(), relay(t, addrs[0], tt.do), false)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			self := meter.Self()
			scene, err := chosen(scenes, tt.scene, func(c *scene) string { return c.name })
			if err != nil {
				t.Fatal(err)
			}
			if err := scene[0].play(&trial{load: l, sizes: b.sizes, gateway: self, result: &result{}}); err != nil {
				t.Fatal(err)
			}
			if (tt.says == "") != (l.errors == 0) || l.first != nil && !strings.Contains(l.first.Error(), tt.says) {
				t.Errorf("%d errors, the first: %v; want %q", l.errors, l.first, tt.says)
			}
		})
	}
}

// alternating returns a func that replaces every other time.
func alternating(old, new string) func([]byte) []byte {
	turns := make(chan bool, 1)
	turns <- false
	return func(p []byte) []byte {
		turn := <-turns
		turns <- !turn
		if turn {
			return bytes.ReplaceAll(p, []byte(old), []byte(new))
		}
		return bytes.Clone(p)
	}
}

// An interrupt ends a trial and its processes.
func TestInterrupt(t *testing.T) {
	b := small(t)
	b.Time = time.Hour
	addrs := running(t, b)
	peers, err := allPeers(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	c := &scene{name: "interrupted", play: func(t *trial) error {
		interrupt()
		return t.echo(64, 4)
	}}
	if _, err := b.try(ctx, peers[len(peers)-1], c, addrs); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFrames(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		for _, masked := range []bool{false, true} {
			payload := bytes.Repeat([]byte("limpets "), size/8+1)[:size]
			frame := appendFrame(nil, opBinary, payload, masked)
			for _, cut := range []int{0, 1, 2, 5, len(frame) - 1} {
				if _, _, n := cutFrame(frame[:min(cut, len(frame)-1)]); n != 0 {
					t.Errorf("%d bytes, masked %v: %d of it are a whole frame", size, masked, cut)
				}
			}
			op, got, n := cutFrame(append(bytes.Clone(frame), "more"...))
			if op != opBinary || n != len(frame) || !bytes.Equal(got, payload) {
				t.Errorf("%d bytes, masked %v: opcode %d, %d of %d bytes", size, masked, op, n, len(frame))
			}
		}
	}
	// RFC 6455, sections 1.3 and 5.7.
	if got := acceptKey("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("accept key %s", got)
	}
	if got := appendFrame(nil, 1, []byte("Hello"), true); string(got) != "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58" {
		t.Errorf("frame %x", got)
	}
}
