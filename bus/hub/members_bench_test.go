package hub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// clientsOf names the variable that makes TestMain the clients of the server whose address
// it holds.
const clientsOf = "LIMPET_HUB_CLIENTS_OF"

// What a WebSocket member costs in memory, first and after three messages each way, and
// how long 5,000 take to connect. The clients are another process. It is run once:
//
//	go test ./bus/hub -run '^$' -bench Members -benchtime 1x
//
// With MEMPROFILE set in the environment, that file gets a heap profile of the members.
func BenchmarkMembers(b *testing.B) {
	const members = 5000
	for _, tt := range []struct {
		name string
		bus  func() bus.Bus
	}{
		{"memory", func() bus.Bus { return nil }},
		{"redis", func() bus.Bus { return &bus.Redis{Client: redistest.Start(b).Client(b)} }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			h := startHub(b, tt.bus(), nil)
			s := serveHub(b, h, &hub.HandlerOptions{
				Opened: func(ctx context.Context, m *hub.Member, _ *http.Request) {
					if err := m.Join(ctx, "lobby"); err != nil {
						b.Error(err)
					}
					m.Send(hub.Text([]byte("hello")))
				},
				Message: func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
			})
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), clientsOf+"="+s.Listener.Addr().String())
			clients := process.Start(b, cmd)
			clients.AwaitLine(b, "ready")
			before := memory()
			for b.Loop() {
				began := time.Now()
				clients.Write(b, members)
				clients.AwaitLine(b, "connected")
				b.ReportMetric(time.Since(began).Seconds(), "s/connect")
				report(b, before, members, "")
				clients.Write(b, -3)
				clients.AwaitLine(b, "spoken")
				report(b, before, members, "-spoken")
				if file := os.Getenv("MEMPROFILE"); file != "" {
					profile(b, file+"."+tt.name)
				}
			}
		})
	}
}

// usage is what this process takes, in bytes.
type usage struct{ resident, heap, stacks float64 }

func memory() usage {
	var m runtime.MemStats
	statm, _ := os.ReadFile("/proc/self/statm")
	pages := 0
	if fields := strings.Fields(string(statm)); len(fields) > 1 {
		pages, _ = strconv.Atoi(fields[1])
	}
	runtime.GC()
	runtime.ReadMemStats(&m)
	return usage{float64(pages * os.Getpagesize()), float64(m.HeapAlloc), float64(m.StackInuse)}
}

// report reports what each member takes more than before.
func report(b *testing.B, before usage, members float64, when string) {
	now := memory()
	b.ReportMetric((now.resident-before.resident)/members, "RSS"+when)
	b.ReportMetric((now.heap-before.heap)/members, "heap"+when)
	b.ReportMetric((now.stacks-before.stacks)/members, "stack"+when)
}

func profile(b *testing.B, file string) {
	f, err := os.Create(file)
	if err == nil {
		err = pprof.WriteHeapProfile(f)
	}
	if err != nil {
		b.Fatal(err)
	}
	f.Close()
}

// memberClients are the clients of BenchmarkMembers. They do what the lines on standard input
// say: n clients connect, 100 at a time, or for -n each sends n messages and reads the answers.
func memberClients(addr string) {
	var conns []net.Conn
	fmt.Println("ready")
	for in := json.NewDecoder(os.Stdin); ; {
		var n int
		switch err := in.Decode(&n); {
		case err != nil:
			return
		case n < 0:
			speak(conns, -n)
			fmt.Println("spoken")
		default:
			conns = append(conns, open(addr, n)...)
			fmt.Println("connected")
		}
	}
}

// open opens WebSockets, and waits for the greeting of each.
func open(addr string, n int) []net.Conn {
	conns := make([]net.Conn, n)
	var opening sync.WaitGroup
	turns := make(chan struct{}, 100)
	for i := range conns {
		turns <- struct{}{}
		opening.Go(func() {
			defer func() { <-turns }()
			c, err := net.Dial("tcp", addr)
			if err != nil {
				log.Fatal(err)
			}
			conns[i] = c
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept-Language: en\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
			in := bufio.NewReader(c)
			for line := "first"; line != "\r\n" && err == nil; {
				line, err = in.ReadString('\n')
			}
			if _, err := io.ReadFull(in, make([]byte, len("\x81\x05hello"))); err != nil {
				log.Fatal(err)
			}
		})
	}
	opening.Wait()
	return conns
}

// speak sends n messages of each client and reads the answers, one after the other.
func speak(conns []net.Conn, n int) {
	const payload = "a message of some fifty bytes, as chats have them, or so"
	message := append([]byte{0x81, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	answer := make([]byte, 2+len(payload))
	for range n {
		for _, c := range conns {
			if _, err := c.Write(message); err != nil {
				log.Fatal(err)
			}
		}
		for _, c := range conns {
			if _, err := io.ReadFull(c, answer); err != nil {
				log.Fatal(err)
			}
		}
	}
}
