package upgrade

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// A HandshakeError is the error of [Proxy.Connect] when the backend gave an answer of
// its own instead of 101. Response is that answer, like one of an [http.RoundTripper].
// Its body is read from the connection and must be closed, which closes the
// connection. If the body is cut short, reading it ends in an error.
type HandshakeError struct {
	Response *http.Response
}

func (e *HandshakeError) Error() string {
	backend := "the backend"
	if r := e.Response.Request; r != nil {
		backend = r.URL.Host
	}
	status := e.Response.StatusCode // the backend chooses the reason phrase: leave it out
	return fmt.Sprintf("upgrade: %s answered the handshake with %d %s", backend, status, http.StatusText(status))
}

// Protocol returns the first protocol in r's Upgrade field that may pass, spelled as
// it is there. It returns "" if there is none or r asks for no upgrade. A server may
// ignore an Upgrade field (RFC 9110, section 7.8): serve such a request as if it had
// none.
func (p *Proxy) Protocol(r *http.Request) string {
	if !Is(r) {
		return ""
	}
	for _, line := range r.Header["Upgrade"] {
		for item := range strings.SplitSeq(line, ",") {
			if item = strings.Trim(item, " \t"); p.allowed(item) {
				return item
			}
		}
	}
	return ""
}

// allowed reports whether a protocol may pass.
func (p *Proxy) allowed(protocol string) bool {
	if strings.EqualFold(protocol, "h2c") {
		return false
	}
	return isWebSocket(protocol) || slices.ContainsFunc(p.Protocols, func(allowed string) bool {
		return strings.EqualFold(protocol, allowed)
	})
}

func isWebSocket(protocol string) bool { return strings.EqualFold(protocol, "websocket") }

// handshake returns the request that is sent to the backend for out.
func (p *Proxy) handshake(out *http.Request) (*http.Request, error) {
	protocol := p.Protocol(out)
	if protocol == "" {
		return nil, fmt.Errorf("upgrade: %w: it asks for no protocol that may pass", ErrBadRequest)
	}
	// A backend that expects no body with an upgrade would read it as the first bytes
	// of the tunnel: a way to smuggle.
	if out.ContentLength != 0 || len(out.TransferEncoding) != 0 || out.Body != nil && out.Body != http.NoBody {
		return nil, fmt.Errorf("upgrade: %w: it has a body", ErrBadRequest)
	}
	req := *out
	req.Body, req.Close, req.Trailer = nil, false, nil
	if _, named := out.Header["User-Agent"]; !named || !isUpgrade(out.Header, protocol) {
		req.Header = maps.Clone(out.Header)
		keepUpgrade(req.Header, protocol)
		if !named {
			req.Header["User-Agent"] = noAgent
		}
	}
	if isWebSocket(protocol) {
		keys := req.Header["Sec-Websocket-Key"]
		if len(keys) != 1 || !validKey(keys[0]) {
			return nil, fmt.Errorf("upgrade: %w: Sec-WebSocket-Key is not one of 16 bytes", ErrBadRequest)
		}
	}
	return &req, nil
}

// noAgent keeps Write from sending a User-Agent of its own.
var noAgent = []string{""}

// validKey reports whether key is 16 bytes in base64 (RFC 6455, section 4.1).
func validKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == 16
}

// isHop reports whether the field of h concerns one connection only (RFC 9110, section
// 7.6.1), or is one that a message without a body has no use for.
func isHop(h http.Header, name string) bool {
	return httpfield.IsHopByHop(name) || name == "Content-Length" || httpfield.HasToken(h["Connection"], name)
}

// keepUpgrade removes the fields of h that concern one connection only, except for those that
// change to this protocol.
func keepUpgrade(h http.Header, protocol string) {
	for name := range h {
		if isHop(h, name) && name != "Connection" && name != "Upgrade" {
			delete(h, name)
		}
	}
	setOnly(h, "Connection", "Upgrade")
	setOnly(h, "Upgrade", protocol)
}

// isUpgrade reports whether keepUpgrade would change nothing.
func isUpgrade(h http.Header, protocol string) bool {
	for name := range h {
		if isHop(h, name) && name != "Connection" && name != "Upgrade" {
			return false
		}
	}
	return hasOnly(h, "Connection", "Upgrade") && hasOnly(h, "Upgrade", protocol)
}

// setOnly sets a field to one value, which it has already most often.
func setOnly(h http.Header, name, value string) {
	if !hasOnly(h, name, value) {
		h[name] = []string{value}
	}
}

func hasOnly(h http.Header, name, value string) bool {
	had := h[name]
	return len(had) == 1 && had[0] == value
}

// verify checks a 101 as a client has to (RFC 6455, section 4.1). Subprotocol and
// extensions are left out: the client checks them itself.
func verify(res *http.Response, req *http.Request) error {
	if !res.ProtoAtLeast(1, 1) {
		return errors.New("101 over HTTP/1.0, which knows none") // RFC 9110, section 15.2
	}
	protocol := req.Header.Get("Upgrade")
	if got := res.Header["Upgrade"]; len(got) != 1 || !strings.EqualFold(got[0], protocol) {
		return fmt.Errorf("101 for %q instead of %q", got, protocol)
	}
	if !httpfield.HasToken(res.Header["Connection"], "upgrade") {
		return errors.New("101 without Connection: Upgrade")
	}
	if isWebSocket(protocol) {
		got := res.Header["Sec-Websocket-Accept"]
		if len(got) != 1 || got[0] != accept(req.Header.Get("Sec-Websocket-Key")) {
			return errors.New("101 with a wrong Sec-WebSocket-Accept")
		}
	}
	return nil
}

// accept returns the Sec-WebSocket-Accept for a key (RFC 6455, section 4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A refusal is the body of an answer that is not 101.
type refusal struct {
	io.ReadCloser
	conn net.Conn
	ctx  context.Context
	stop func() bool
}

func (b *refusal) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// Close doesn't call the body's own Close, which would read the rest of it.
func (b *refusal) Close() error {
	b.stop()
	return b.conn.Close()
}
