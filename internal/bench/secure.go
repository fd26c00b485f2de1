//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/limpet-go/limpet/internal/switchable"
)

// secure reports whether the clients of a case come by TLS.
func (c *scene) secure() bool { return strings.HasPrefix(c.name, "wss ") }

func certFile(dir string) string { return filepath.Join(dir, "cert.pem") }
func keyFile(dir string) string  { return filepath.Join(dir, "key.pem") }

// writeKeys writes a certificate, and its key behind it as HAProxy wants it, and the key
// alone. ECDSA P-256 is what most sites have.
func writeKeys(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"bench.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), text...)
	return errors.Join(os.WriteFile(certFile(dir), both, 0o600), os.WriteFile(keyFile(dir), text, 0o600))
}

// A secure is TLS on a connection of a loop. What crypto/tls reads and writes below
// itself is in memory.
type secure struct {
	*tls.Conn
	in, out []byte
}

// connect connects to the gateway. A handshake of TLS blocks, but for what the gateway
// needs, and isn't measured.
func (l *load) connect() (*conn, error) {
	if !l.tls {
		return l.dial(l.port)
	}
	plain, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(l.port))
	if err != nil {
		return nil, err
	}
	defer plain.Close() // the loop has a duplicate
	below := switchable.New(plain)
	client := tls.Client(below, &tls.Config{InsecureSkipVerify: true, ServerName: "bench.example", NextProtos: []string{"http/1.1"}})
	client.SetDeadline(time.Now().Add(patience))
	if err := client.Handshake(); err != nil {
		return nil, err
	}
	file, err := plain.(*net.TCPConn).File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	c, err := l.adopt(int(file.Fd()))
	if err != nil {
		return nil, err
	}
	c.secure = &secure{Conn: client}
	below.Switch(c.secure)
	return c, nil
}

func (s *secure) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, os.ErrDeadlineExceeded // crypto/tls gets over it
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *secure) Write(p []byte) (int, error) {
	s.out = append(s.out, p...)
	return len(p), nil
}

// decrypt tells received what is in p.
func (c *conn) decrypt(p []byte) {
	s := c.secure
	s.in = p
	for !c.closed {
		n, err := s.Conn.Read(c.loop.plain)
		if n > 0 {
			c.received(c.loop.plain[:n], nil)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil && !c.closed {
			c.fail(err)
			return
		}
	}
}

// encrypt returns the records of p.
func (c *conn) encrypt(p []byte) []byte {
	s := c.secure
	s.out = s.out[:0]
	_, _ = s.Conn.Write(p) // reading tells what is wrong
	return s.out
}
