package upgrade_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// request is a client's handshake, with fields changed as told ("" removes).
func request(t *testing.T, fields ...string) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(shake)))
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Scheme, r.URL.Host = "http", "backend.invalid"
	for i := 0; i < len(fields); i += 2 {
		r.Header.Del(fields[i])
		for value := range strings.SplitSeq(fields[i+1], "\n") {
			if value != "" {
				r.Header.Add(fields[i], value)
			}
		}
	}
	return r.WithContext(t.Context())
}

func TestIsAndProtocol(t *testing.T) {
	p := &upgrade.Proxy{Protocols: []string{"custom", "h2c"}}
	for name, test := range map[string]struct {
		r        *http.Request
		is       bool
		protocol string
	}{
		"websocket":      {request(t), true, "websocket"},
		"lists":          {request(t, "Connection", "keep-alive\nfoo , UPGRADE", "Upgrade", "WebSocket"), true, "WebSocket"},
		"first allowed":  {request(t, "Upgrade", "h2c, other\n custom ,websocket"), true, "custom"},
		"h2c":            {request(t, "Upgrade", "h2c"), true, ""},
		"not in list":    {request(t, "Connection", "xupgrade"), false, ""},
		"no connection":  {request(t, "Connection", ""), false, ""},
		"no protocol":    {request(t, "Upgrade", ""), false, ""},
		"POST":           {&http.Request{Method: "POST", ProtoMajor: 1, ProtoMinor: 1, Header: request(t).Header}, false, ""},
		"HTTP/1.0":       {&http.Request{Method: "GET", ProtoMajor: 1, ProtoMinor: 0, Header: request(t).Header}, false, ""},
		"HTTP/2":         {&http.Request{Method: "GET", ProtoMajor: 2, ProtoMinor: 0, Header: request(t).Header}, false, ""},
		"HTTP/2-looking": {&http.Request{Method: "GET", ProtoMajor: 2, ProtoMinor: 1, Header: request(t).Header}, false, ""},
	} {
		if is, protocol := upgrade.Is(test.r), p.Protocol(test.r); is != test.is || protocol != test.protocol {
			t.Errorf("%s: %v, %q", name, is, protocol)
		}
	}
}

type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestCanHijack(t *testing.T) {
	t.Parallel()
	answers := make(chan bool, 3)
	s := start(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers <- upgrade.CanHijack(w)
		answers <- upgrade.CanHijack(wrapper{wrapper{w}})
		answers <- upgrade.CanHijack(struct{ http.ResponseWriter }{w})
	}))
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if plain, wrapped, opaque := <-answers, <-answers, <-answers; !plain || !wrapped || opaque {
		t.Error(plain, wrapped, opaque)
	}
	if upgrade.CanHijack(httptest.NewRecorder()) {
		t.Error("a recorder")
	}
}

// script is a backend that does what it is told to with a connection, once.
func script(t *testing.T, act func(conn net.Conn, r *bufio.Reader)) *upgrade.Proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		act(conn, bufio.NewReader(conn))
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return &upgrade.Proxy{Dial: func(ctx context.Context, _ *http.Request) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		if err == nil { // also keeps the garbage collector from closing it
			t.Cleanup(func() { conn.Close() })
		}
		return conn, err
	}}
}

// answer is a backend that reads the handshake and answers so.
func answer(t *testing.T, response string) *upgrade.Proxy {
	return script(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, response)
	})
}

func TestRequestAsItArrives(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	p := script(t, func(conn net.Conn, r *bufio.Reader) {
		var lines strings.Builder
		for {
			line, err := r.ReadString('\n')
			lines.WriteString(line)
			if err != nil || line == "\r\n" {
				break
			}
		}
		got <- lines.String()
	})
	r := request(t,
		"Connection", "keep-alive, Upgrade, X-Mine", "Upgrade", "h2c, websocket", "X-Mine", "1", "Keep-Alive", "5",
		"Te", "trailers", "Proxy-Authorization", "x", "Content-Length", "0", "Cookie", "a=1; b=2",
		"Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits", "Sec-WebSocket-Protocol", "a, b")
	r.URL.Opaque, r.URL.RawQuery = "/chat|", `a=1;b="2"`
	r.Close = true
	p.Connect(r, upgrade.ConnectOptions{})
	want := "GET /chat|?a=1;b=\"2\" HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nCookie: a=1; b=2\r\n" +
		"Sec-Websocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-Websocket-Key: " + key + "\r\n" +
		"Sec-Websocket-Protocol: a, b\r\nSec-Websocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
	// The order of the fields is left open.
	lines := strings.SplitAfter(wait(t, got), "\r\n")
	if len(lines) > 4 {
		slices.Sort(lines[2 : len(lines)-2])
	}
	if got := strings.Join(lines, ""); got != want {
		t.Errorf("the backend got\n%q\nwant\n%q", got, want)
	}
	if r.Header.Get("X-Mine") == "" {
		t.Error("the caller's request was changed")
	}
}

func TestBadRequest(t *testing.T) {
	body := request(t)
	body.Body, body.ContentLength = io.NopCloser(strings.NewReader("GET /admin HTTP/1.1\r\n\r\n")), 23
	unknown := request(t)
	unknown.ContentLength, unknown.TransferEncoding = -1, []string{"chunked"}
	for name, r := range map[string]*http.Request{
		"no upgrade": request(t, "Connection", ""),
		"h2c":        request(t, "Upgrade", "h2c"),
		"other":      request(t, "Upgrade", "custom"),
		"no key":     request(t, "Sec-WebSocket-Key", ""),
		"short key":  request(t, "Sec-WebSocket-Key", "c2hvcnQ="),
		"two keys":   request(t, "Sec-WebSocket-Key", key+"\n"+key),
		"named key":  request(t, "Connection", "upgrade, sec-websocket-key"),
		"body":       body, "chunked body": unknown,
	} {
		p := &upgrade.Proxy{Dial: func(context.Context, *http.Request) (net.Conn, error) {
			t.Errorf("%s: dialled", name)
			return nil, io.EOF
		}}
		if _, err := p.Connect(r, upgrade.ConnectOptions{}); !errors.Is(err, upgrade.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A backend's own answer reaches the caller as it is.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 302, 401, 403, 404, 426, 500} {
		p := answer(t, fmt.Sprintf("HTTP/1.1 %d Whatever\r\nX-Why: because\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"+
			"Transfer-Encoding: chunked\r\n\r\n3\r\nnot\r\n5\r\n you!\r\n0\r\n\r\n", status))
		out := request(t)
		_, err := p.Connect(out, upgrade.ConnectOptions{Closed: func(upgrade.Summary) { t.Error("Closed was called") }})
		var refused *upgrade.HandshakeError
		if !errors.As(err, &refused) {
			t.Fatalf("%d: %v", status, err)
		}
		res := refused.Response
		if res.StatusCode != status || res.Header.Get("X-Why") != "because" || len(res.Cookies()) != 2 || res.Request != out {
			t.Errorf("%d: %+v", status, res)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "not you!" || err != nil {
			t.Errorf("%d: body %q, %v", status, b, err)
		}
		if want := fmt.Sprintf("backend.invalid answered the handshake with %d", status); !strings.Contains(err.Error(), want) {
			t.Errorf("error %q", err)
		}
		res.Body.Close()
	}
}

// The limit on the header is none on the body.
func TestRefusedAtLength(t *testing.T) {
	t.Parallel()
	_, err := answer(t, "HTTP/1.1 404 Not Found\r\n\r\n"+strings.Repeat("x", 1<<20)).Connect(request(t), upgrade.ConnectOptions{})
	var refused *upgrade.HandshakeError
	if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	defer refused.Response.Body.Close()
	if b, err := io.ReadAll(refused.Response.Body); len(b) != 1<<20 || err != nil {
		t.Error(len(b), err)
	}
}

func TestRefusedBreaksOff(t *testing.T) {
	t.Parallel()
	for name, response := range map[string]string{
		"length":  "HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nnot",
		"chunked": "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnot\r\n",
	} {
		_, err := answer(t, response).Connect(request(t), upgrade.ConnectOptions{})
		var refused *upgrade.HandshakeError
		if !errors.As(err, &refused) {
			t.Fatalf("%s: %v", name, err)
		}
		if b, err := io.ReadAll(refused.Response.Body); string(b) != "not" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		refused.Response.Body.Close()
	}
}

// Closing the body of an endless answer, and its context, end the connection.
func TestRefusedEndless(t *testing.T) {
	t.Parallel()
	for _, byContext := range []bool{false, true} {
		gone := make(chan error, 1)
		p := script(t, func(conn net.Conn, r *bufio.Reader) {
			http.ReadRequest(r)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\ndata")
			_, err := r.ReadByte()
			gone <- err
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := p.Connect(request(t).WithContext(ctx), upgrade.ConnectOptions{})
		var refused *upgrade.HandshakeError
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		body := refused.Response.Body
		if _, err := io.ReadFull(body, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if byContext {
			lost := errors.New("lost")
			cancel(lost)
			if _, err := body.Read(make([]byte, 1)); err != lost {
				t.Errorf("reading a cancelled body: %v", err)
			}
		}
		body.Close()
		if err := wait(t, gone); err != io.EOF {
			t.Errorf("the backend read %v", err)
		}
		cancel(nil)
	}
}

func TestBadAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ response, want string }{
		"wrong accept": {strings.Replace(switching, "s3p", "xxx", 1), "wrong Sec-WebSocket-Accept"},
		"HTTP/1.0":     {strings.Replace(switching, "HTTP/1.1", "HTTP/1.0", 1), "HTTP/1.0"},
		"no accept":    {"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "wrong Sec-WebSocket-Accept"},
		"protocol":     {strings.Replace(switching, "websocket", "h2c", 1), `101 for ["h2c"]`},
		"two":          {strings.Replace(switching, "Upgrade: w", "Upgrade: h2c\r\nUpgrade: w", 1), "101 for"},
		"none":         {strings.Replace(switching, "Upgrade: websocket", "X: x", 1), "101 for"},
		"connection":   {strings.Replace(switching, "Connection: Upgrade", "Connection: close", 1), "without Connection: Upgrade"},
		"cut":          {switching[:55], "unexpected EOF"},
		"nothing":      {"", "EOF"},
		"no HTTP":      {"SSH-2.0-x\r\n\r\n", "malformed"},
		"long header":  {"HTTP/1.1 101 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "more than 65536 bytes"},
		"endless 1xx":  {strings.Repeat("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", 5000), "more than 65536 bytes"},
	} {
		_, err := answer(t, test.response).Connect(request(t), upgrade.ConnectOptions{})
		var refused *upgrade.HandshakeError
		if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInformational(t *testing.T) {
	t.Parallel()
	var hints []string
	r := request(t)
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
	}))
	p := answer(t, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+switching)
	tunnel, err := p.Connect(r, upgrade.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tunnel.Close(1001, "")
	if fmt.Sprint(hints) != "[100 103x]" {
		t.Error(hints)
	}
}

// The context ends a dial and a handshake that hang.
func TestCancel(t *testing.T) {
	t.Parallel()
	lost := errors.New("lost")
	for _, when := range []string{"dial", "answer"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		p := script(t, func(_ net.Conn, r *bufio.Reader) {
			http.ReadRequest(r)
			cancel(lost)
			r.ReadByte() // until the gateway closes
		})
		if when == "dial" {
			p.Dial = func(ctx context.Context, _ *http.Request) (net.Conn, error) {
				cancel(lost)
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
		}
		if _, err := p.Connect(request(t).WithContext(ctx), upgrade.ConnectOptions{}); !errors.Is(err, lost) {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// A backend that never answers doesn't keep the handshake for ever, and one that has begun
// to refuse may take its time with the rest.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		limit time.Duration
		ends  time.Duration
		head  string
	}{
		{"by default", 0, 10 * time.Second, ""},
		{"as set", time.Minute, time.Minute, ""},
		{"within the header", time.Minute, time.Minute, "HTTP/1.1 101 Switch"},
		{"within a refusal", time.Minute, 0, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n"},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			p := &upgrade.Proxy{HandshakeTimeout: tt.limit, Dial: func(context.Context, *http.Request) (net.Conn, error) {
				near, far := net.Pipe()
				go func() {
					defer far.Close()
					_, _ = http.ReadRequest(bufio.NewReader(far))
					io.WriteString(far, tt.head)
					time.Sleep(time.Hour)
					io.WriteString(far, "no")
				}()
				return near, nil
			}}
			began := time.Now()
			_, err := p.Connect(request(t), upgrade.ConnectOptions{})
			took := time.Since(began)
			var refusal *upgrade.HandshakeError
			if errors.As(err, &refusal) {
				defer refusal.Response.Body.Close()
				if body, err := io.ReadAll(refusal.Response.Body); string(body) != "no" || err != nil {
					t.Errorf("the refusal: %q, %v", body, err)
				}
			} else if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
			if took != tt.ends {
				t.Errorf("it took %v, want %v", took, tt.ends)
			}
			time.Sleep(2 * time.Hour) // until the backend ends
		})
	}
}

func TestDialFails(t *testing.T) {
	refused := errors.New("refused")
	p := &upgrade.Proxy{Dial: func(context.Context, *http.Request) (net.Conn, error) { return nil, refused }}
	_, err := p.Connect(request(t), upgrade.ConnectOptions{})
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "backend.invalid") {
		t.Error(err)
	}
	r := request(t)
	r.URL.Scheme = "ftp"
	if _, err := new(upgrade.Proxy).Connect(r, upgrade.ConnectOptions{}); err == nil {
		t.Error("dialled ftp")
	}
}

// A Dial that panics, as a server's handler may, leaves nothing for which Shutdown waits.
func TestDialPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &upgrade.Proxy{Dial: func(context.Context, *http.Request) (net.Conn, error) { panic("dial") }}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			p.Connect(request(t), upgrade.ConnectOptions{})
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// Without a Dial the URL says where to go. The certificate is checked.
func TestDefaultDial(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		h, _ := backends(t)
		r := request(t)
		r.URL.Host = start(t, secure, h).Listener.Addr().String()
		if secure {
			r.URL.Scheme = "https"
		}
		tunnel, err := new(upgrade.Proxy).Connect(r, upgrade.ConnectOptions{})
		var invalid *tls.CertificateVerificationError
		if secure != errors.As(err, &invalid) {
			t.Errorf("TLS %v: %v", secure, err)
		}
		if err == nil {
			tunnel.Close(1001, "")
		}
	}
}
