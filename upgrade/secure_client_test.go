package upgrade_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/need"
)

// A rawClient speaks the records of TLS 1.3 (RFC 8446, section 5) by itself, once
// crypto/tls has shaken hands: crypto/tls can't be asked for a KeyUpdate.
type rawClient struct {
	t *testing.T
	net.Conn
	in, out keys
	updates int    // KeyUpdates that came
	rest    []byte // payload that nobody has asked for
}

// keys are those of one direction.
type keys struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	number uint64
}

const (
	recordHandshake = 22
	recordData      = 23
)

// rawClient shakes hands with the gateway and opens a tunnel.
func (r *rig) rawClient() *rawClient {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	var log bytes.Buffer
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &log}) // without a session cache there are no tickets
	if err := client.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	if suite := client.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		need.Lacks(r.t, "aes", "needs a processor with AES of its own, or the cipher suite is "+tls.CipherSuiteName(suite))
	}
	c := &rawClient{t: r.t, Conn: conn}
	for line := range strings.Lines(log.String()) {
		fields := strings.Fields(line)
		secret, _ := hex.DecodeString(fields[2])
		switch fields[0] {
		case "CLIENT_TRAFFIC_SECRET_0":
			c.out.set(secret)
		case "SERVER_TRAFFIC_SECRET_0":
			c.in.set(secret)
		}
	}
	c.send(recordData, []byte(shake))
	for head := ""; !strings.HasSuffix(head, "\r\n\r\n"); {
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			r.t.Fatalf("handshake: %q, %v", head, err)
		}
		head += string(b)
	}
	return c
}

// set derives the keys from a secret (section 7.3).
func (k *keys) set(secret []byte) {
	block, _ := aes.NewCipher(expand(secret, "key", 16))
	k.aead, _ = cipher.NewGCM(block)
	k.secret, k.iv, k.number = secret, expand(secret, "iv", 12), 0
}

// update is what each KeyUpdate does (section 7.2).
func (k *keys) update() { k.set(expand(k.secret, "traffic upd", sha256.Size)) }

func (k *keys) nonce() []byte {
	nonce := bytes.Clone(k.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, k.number) {
		nonce[4+i] ^= b
	}
	k.number++
	return nonce
}

// expand is HKDF-Expand-Label (section 7.1).
func expand(secret []byte, label string, size int) []byte {
	label = "tls13 " + label
	info := append([]byte{byte(size >> 8), byte(size), byte(len(label))}, label...)
	b, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), size)
	if err != nil {
		panic(err)
	}
	return b
}

// record returns a record.
func (c *rawClient) record(kind byte, payload []byte) []byte {
	inner := append(bytes.Clone(payload), kind)
	size := len(inner) + c.out.aead.Overhead()
	head := []byte{recordData, 3, 3, byte(size >> 8), byte(size)}
	return c.out.aead.Seal(head, c.out.nonce(), inner, head)
}

// keyUpdate returns a KeyUpdate, which may ask for one in turn (section 4.6.3).
func (c *rawClient) keyUpdate(ask bool) []byte {
	message := []byte{24, 0, 0, 1, 0}
	if ask {
		message[4] = 1
	}
	b := c.record(recordHandshake, message)
	c.out.update()
	return b
}

func (c *rawClient) send(kind byte, payload []byte) {
	c.t.Helper()
	if _, err := c.Write(c.record(kind, payload)); err != nil {
		c.t.Error(err)
	}
}

// Read reads payload.
func (c *rawClient) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if err := c.readRecord(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *rawClient) readRecord() error {
	head := make([]byte, 5)
	if _, err := io.ReadFull(c.Conn, head); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		return err
	}
	b, err := c.in.aead.Open(nil, c.in.nonce(), b, head)
	if err != nil {
		return err
	}
	switch kind, b := b[len(b)-1], b[:len(b)-1]; {
	case kind == recordData:
		c.rest = b
	case kind == recordHandshake && bytes.Equal(b, []byte{24, 0, 0, 1, 0}):
		c.updates++
		c.in.update()
	default:
		return errors.New("unexpected record")
	}
	return nil
}

func (c *rawClient) expect(want string) {
	c.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		c.t.Fatalf("read %.1000q, %v, want %.1000q", got[:n], err, want)
	}
}
