package upgrade

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// slowToClose is a connection whose Close takes until it is let.
type slowToClose struct {
	net.Conn
	let chan struct{}
}

func (c slowToClose) Close() error {
	<-c.let
	return c.Conn.Close()
}

// A backend that speaks while a torn tunnel is being cut isn't heard any more.
func TestNothingBehindTornMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		front, client := net.Pipe()
		behind, backend := net.Pipe()
		let, done := make(chan struct{}), make(chan Summary, 1)
		pump := startPump(link{
			client: slowToClose{front, let}, backend: behind, head: []byte("."), websocket: true,
			tunnel: &Tunnel{proxy: &Proxy{}, opts: ConnectOptions{Closed: func(s Summary) { done <- s }}},
		})
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan error, 1)
		go func() { sent <- pump.send(ctx, [][]byte{TextFrame("hello")}) }()
		if _, err := io.ReadFull(client, make([]byte, len(".")+4)); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		go backend.Write(TextFrame("late"))
		client.SetReadDeadline(time.Now().Add(time.Second))
		if b, err := io.ReadAll(client); len(b) > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %q, %v behind the torn message", b, err)
		}
		close(let)
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-done
	})
}
