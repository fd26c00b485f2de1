package upgrade_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// BenchmarkEcho is one message there and back, the two ends included.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 60 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			client := benchTunnel(b)
			msg := text(strings.Repeat("x", size), true)
			back := make([]byte, len(msg)-4)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(msg); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, back); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSend is one message of the gateway's to one client, which drops it.
func BenchmarkSend(b *testing.B) {
	addr, proxy := benchGateway(b)
	conn := benchDial(b, addr)
	var draining sync.WaitGroup
	defer draining.Wait()
	defer conn.Close()
	draining.Go(func() { io.Copy(io.Discard, conn) })
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	frame := [][]byte{upgrade.TextFrame(strings.Repeat("x", 64))}
	for tunnel := range proxy.Tunnels() {
		b.ReportAllocs()
		for b.Loop() {
			if err := tunnel.Send(ctx, frame...); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkOpen is a tunnel opened, and closed by its client.
func BenchmarkOpen(b *testing.B) {
	addr, _ := benchGateway(b)
	b.ReportAllocs()
	for b.Loop() {
		benchDial(b, addr).Close()
	}
}

func benchTunnel(b *testing.B) net.Conn {
	addr, _ := benchGateway(b)
	conn := benchDial(b, addr)
	b.Cleanup(func() { conn.Close() })
	return conn
}

func benchDial(b *testing.B, addr string) net.Conn {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.WriteString(conn, shake); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(switching))); err != nil {
		b.Fatal(err)
	}
	return conn
}

// benchGateway starts a gateway before a backend that takes the mask off each
// frame's header and sends the rest back.
func benchGateway(b *testing.B) (addr string, p *upgrade.Proxy) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 128<<10)
				conn.Read(buf)
				io.WriteString(conn, switching)
				for {
					n, err := io.ReadAtLeast(conn, buf, 2)
					if err != nil {
						return
					}
					head, size := 6, int(buf[1]&0x7f)
					if size == 126 {
						head, size = 8, int(buf[2])<<8|int(buf[3])
					}
					if m, err := io.ReadFull(conn, buf[n:head+size]); err != nil && m < head+size-n {
						return
					}
					buf[1] &= 0x7f
					copy(buf[head-4:], buf[head:head+size])
					if _, err := conn.Write(buf[:head-4+size]); err != nil {
						return
					}
				}
			}()
		}
	}()
	p = &upgrade.Proxy{Dial: func(ctx context.Context, _ *http.Request) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	}}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Host = "backend"
		tunnel, err := p.Connect(r, upgrade.Options{})
		if err == nil {
			err = tunnel.Serve(w)
		}
		if err != nil {
			b.Error(err)
		}
	})}
	go server.Serve(front)
	b.Cleanup(func() {
		server.Close()
		l.Close()
		p.Shutdown(context.Background())
	})
	return front.Addr().String(), p
}
