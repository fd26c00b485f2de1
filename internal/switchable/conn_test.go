package switchable_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/switchable"
)

// memory is what is below once a connection is switched.
type memory struct{ in, out bytes.Buffer }

func (m *memory) Write(p []byte) (int, error) { return m.out.Write(p) }

func (m *memory) Read(p []byte) (int, error) {
	if m.in.Len() == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return m.in.Read(p)
}

// crypto/tls goes on with what is below, gets over its errors wherever they come, and
// ends as ever.
func TestSwitch(t *testing.T) {
	t.Parallel()
	keys := httptest.NewUnstartedServer(nil) // of its certificate
	keys.StartTLS()
	defer keys.Close()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ours, theirs := net.Pipe()
		below := switchable.New(ours)
		if below.NetConn() != ours {
			t.Error("NetConn is another one")
		}
		server := tls.Server(below, &tls.Config{Certificates: keys.TLS.Certificates, MaxVersion: version})
		client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
		shaken := make(chan error, 1)
		go func() { shaken <- server.Handshake() }()
		if err := errors.Join(client.Handshake(), <-shaken); err != nil {
			t.Fatal(err)
		}
		m := &memory{}
		below.Switch(m)

		go func() {
			io.WriteString(client, "hello")
			client.CloseWrite()
		}()
		buf := make([]byte, 10)
		for got := 0; got < len("hello"); {
			if n, err := server.Read(buf[got:]); n > 0 {
				got += n
			} else if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("read %d bytes, %v", n, err)
			}
			if _, err := io.CopyN(&m.in, ours, 1); err != nil {
				t.Fatal(err)
			}
		}
		if string(buf[:5]) != "hello" {
			t.Errorf("read %q", buf)
		}
		for {
			_, err := server.Read(buf)
			if err == io.EOF {
				break
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the end: %v", err)
			}
			if _, err := io.CopyN(&m.in, ours, 1); err != nil {
				t.Fatal(err)
			}
		}

		io.WriteString(server, "world")
		if err := server.CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
		go ours.Write(m.out.Bytes())
		if b, err := io.ReadAll(client); string(b) != "world" || err != nil {
			t.Errorf("the client read %q, %v", b, err)
		}
		if err := below.SetDeadline(time.Now()); err != nil {
			t.Errorf("SetDeadline: %v", err)
		}
		if err := below.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
		ours.Close()
		theirs.Close()
	}
}

func TestInnermost(t *testing.T) {
	socket, peer := net.Pipe()
	defer socket.Close()
	defer peer.Close()
	for name, conn := range map[string]net.Conn{
		"nothing":          socket,
		"a Conn":           switchable.New(socket),
		"TLS":              tls.Client(socket, &tls.Config{InsecureSkipVerify: true}),
		"TLS above a Conn": tls.Client(switchable.New(socket), &tls.Config{InsecureSkipVerify: true}),
	} {
		if got := switchable.Innermost(conn); got != socket {
			t.Errorf("below %s is %v", name, got)
		}
	}
}
