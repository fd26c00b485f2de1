package upgrade_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/switchable"
	"github.com/limpet-go/limpet/upgrade"
)

// Both ends talk, in messages and packets of any size, senders put theirs in
// between, and one of many things happens at any moment: what arrives is whole as
// far as it goes, and all of it if nothing happens.
func TestStorm(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		if s.tls && s.front == 0 || s.name == "epoll,unwrapped" { // narrow knows no such connections
			continue
		}
		t.Run(s.name, func(t *testing.T) { // not all at once: on a busy machine they would take too long
			h, ends := backends(t)
			r := newRig(t, s, &upgrade.Proxy{}, h)
			r.narrow(s)
			var wg sync.WaitGroup
			for i := range 14 {
				client, backend, tunnel := r.client(), wait(t, ends), wait(t, r.tunnels)
				wg.Go(func() { storm(t, i%7, client, backend, tunnel) })
			}
			wg.Wait()
			for range 14 {
				wait(t, r.closed)
			}
		})
	}
}

// narrow has the gateway's sockets keep little, so that there is often no room.
func (r *rig) narrow(s setup) {
	dial := r.proxy.Dial
	if dial == nil {
		dial = func(ctx context.Context, out *http.Request) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", out.URL.Host)
		}
	}
	r.proxy.Dial = func(ctx context.Context, out *http.Request) (net.Conn, error) {
		conn, err := dial(ctx, out)
		if err == nil {
			if secured, ok := conn.(*tls.Conn); ok {
				conn := secured.NetConn().(*switchable.Conn)
				conn.NetConn().(*net.TCPConn).SetWriteBuffer(8 << 10)
				return secured, nil
			}
			conn.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(8 << 10)
		}
		return conn, err
	}
	s.narrow = true
	r.front = s.start(r.t, r.front.Config.Handler)
}

type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		conn.(*net.TCPConn).SetWriteBuffer(8 << 10)
	}
	return conn, err
}

func storm(t *testing.T, how int, client, backend *end, tunnel *upgrade.Tunnel) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	happens := func() {}
	switch how {
	case 1:
		happens = func() { tunnel.Close(1012, "storm") }
	case 2:
		happens = cancel // tears a message, or is too late for that
	case 3:
		happens = client.reset
	case 4:
		happens = backend.reset
	case 5:
		happens = func() { client.Close() }
	case 6:
		happens = func() { backend.Close() }
	}
	var senders, all sync.WaitGroup
	sent := make([]uint32, 3)
	for i := range sent {
		senders.Go(func() {
			for j := range uint32(20) {
				b := binary.BigEndian.AppendUint32(append([]byte("sender"), byte(i)), j)
				err := tunnel.Send(ctx, upgrade.BinaryFrame(append(b, make([]byte, size())...)))
				if err == nil {
					sent[i]++
					continue
				}
				if how == 0 || !errors.Is(err, upgrade.ErrClosed) && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
		})
	}
	up, down := talker{to: client, sum: sha256.New()}, talker{to: backend, sum: sha256.New()}
	var atClient, atBackend listener
	heard := make(chan struct{})
	all.Go(func() { // the backend's end would be the tunnel's: it waits for the others
		down.talk(0, nil)
		senders.Wait()
		if how > 0 {
			tunnel.Close(1012, "")
		}
		<-heard
		backend.Close()
	})
	all.Go(func() {
		up.talk(maskBit, happens)
		if how == 0 {
			client.closeWrite()
		}
	})
	all.Go(func() {
		atBackend.listen(backend, 0)
		close(heard)
	})
	all.Go(func() {
		atClient.listen(client, len(sent))
		client.Close()
	})
	all.Wait()
	for name, l := range map[string]*listener{"client": &atClient, "backend": &atBackend} {
		if l.wrong != "" {
			t.Errorf("%d: the %s got %s", how, name, l.wrong)
		}
	}
	if how > 0 {
		return
	}
	if !bytes.Equal(atBackend.sum, up.sum.Sum(nil)) || !bytes.Equal(atClient.sum, down.sum.Sum(nil)) || fmt.Sprint(atClient.next) != fmt.Sprint(sent) {
		t.Errorf("not all arrived; of the senders' %v %v", sent, atClient.next)
	}
}

const maskBit = 0x80

// size is one of a payload, often at the border of two headers.
func size() int {
	edges := [...]int{0, 125, 126, 65_535, 65_536, 1 << 18}
	if i := rand.IntN(20); i < len(edges) {
		return edges[i]
	}
	return rand.IntN(3000)
}

type talker struct {
	to  *end
	sum hash.Hash
}

// talk writes messages until an error comes; in one of them something happens.
func (k *talker) talk(mask byte, happens func()) {
	const messages = 60
	for i, when := 0, rand.IntN(messages); i < messages; i++ {
		var b []byte
		fragments := 1 + rand.IntN(3)
		for j := range fragments {
			if rand.IntN(4) == 0 {
				b = append(b, head(0x89, mask, 100)...)
			}
			op := byte(0)
			if j == 0 {
				op = 1
			}
			if j == fragments-1 {
				op |= 0x80
			}
			b = append(b, head(op, mask, size())...)
		}
		for len(b) > 0 {
			n := min(len(b), 1+rand.IntN(1<<rand.IntN(18)))
			if i == when && happens != nil && rand.IntN(2) == 0 {
				happens()
				happens = nil
			}
			k.to.goesOn()
			n, err := k.to.Write(b[:n])
			k.sum.Write(b[:n])
			if b = b[n:]; err != nil {
				return
			}
			runtime.Gosched()
		}
	}
	if happens != nil {
		happens()
	}
}

// goesOn gives an end as much time as it has had at first: a storm may take a busy machine longer
// than that, but not each of its steps.
func (e *end) goesOn() { e.SetDeadline(time.Now().Add(patience)) }

// head builds a frame that nobody reads the payload of.
func head(op, mask byte, size int) []byte {
	b := []byte{op}
	switch {
	case size <= 125:
		b = append(b, mask|byte(size))
	case size < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(size))
	}
	if mask != 0 {
		size += 4
	}
	return append(b, make([]byte, size)...)
}

type listener struct {
	sum   []byte   // of all that is not a sender's
	next  []uint32 // message of each sender
	wrong string
}

// listen takes frames apart until an error comes.
func (l *listener) listen(e *end, senders int) {
	l.next = make([]uint32, senders)
	sum := sha256.New()
	for open, closed := false, false; l.wrong == ""; {
		var raw bytes.Buffer
		e.goesOn()
		op, payload, err := readFrame(io.TeeReader(e.r, &raw))
		switch {
		case err != nil:
			if err.Error() == "a frame of more than 64 MiB" {
				l.wrong = err.Error()
			}
			l.sum = sum.Sum(nil)
			return
		case closed:
			l.wrong = "something behind a close frame"
		case op == 0x88:
			closed = true
		case bytes.HasPrefix(payload, []byte("sender")):
			i := payload[6]
			if got := binary.BigEndian.Uint32(payload[7:]); open || got != l.next[i] {
				l.wrong = fmt.Sprintf("message %d of sender %d instead of %d, within another: %v", got, i, l.next[i], open)
			}
			l.next[i]++
		default:
			if op&0xf == 0 && !open || op&0xf == 1 && open {
				l.wrong = fmt.Sprintf("frame %x within a message: %v", op, open)
			}
			if op&0xf < 8 {
				open = op&0x80 == 0
			}
			sum.Write(raw.Bytes())
		}
	}
}
