package upgrade_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// BenchmarkEcho is one message there and back, the two ends included.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 60 << 10} {
		benchEach(b, fmt.Sprint(size), func(b *testing.B, s setup) {
			client := benchTunnel(b, s)
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
	benchEach(b, "64", benchSend)
}

func benchSend(b *testing.B, s setup) {
	addr, proxy := benchGateway(b, s)
	conn := benchDial(b, s, addr)
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
	benchEach(b, "close", func(b *testing.B, s setup) {
		addr, _ := benchGateway(b, s)
		b.ReportAllocs()
		for b.Loop() {
			benchDial(b, s, addr).Close()
		}
	})
}

// benchEach runs a benchmark on each engine.
func benchEach(b *testing.B, name string, bench func(b *testing.B, s setup)) {
	for _, s := range setups {
		if !s.tls {
			b.Run(name+"/"+s.name, func(b *testing.B) { bench(b, s) })
		}
	}
}

func benchTunnel(b *testing.B, s setup) net.Conn {
	addr, _ := benchGateway(b, s)
	conn := benchDial(b, s, addr)
	b.Cleanup(func() { conn.Close() })
	return conn
}

func benchDial(b *testing.B, s setup, addr string) net.Conn {
	conn, err := net.Dial("tcp", addr)
	if err == nil && s.front != 0 {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
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
func benchGateway(b *testing.B, s setup) (addr string, p *upgrade.Proxy) {
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
	p = &upgrade.Proxy{}
	s.use(p)
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host = "http", l.Addr().String()
		tunnel, err := p.Connect(r, upgrade.ConnectOptions{})
		if err == nil {
			err = tunnel.Serve(w)
		}
		if err != nil {
			b.Error(err)
		}
	})}
	if s.front != 0 {
		keys := httptest.NewUnstartedServer(nil) // of its certificate
		keys.StartTLS()
		defer keys.Close()
		server.TLSConfig = &tls.Config{Certificates: keys.TLS.Certificates, MinVersion: s.front, MaxVersion: s.front}
		go server.ServeTLS(&upgrade.Listener{Listener: front}, "", "")
	} else {
		go server.Serve(front)
	}
	b.Cleanup(func() {
		server.Close()
		l.Close()
		p.Shutdown(context.Background())
	})
	return front.Addr().String(), p
}
