package upgrade

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"

	"github.com/limpet-go/limpet/internal/httphead"
)

// headerLimit bounds how much is read from the backend before the body of its final
// answer: the header of that answer and those of 1xx answers before it. A handshake
// needs a hundredth of it.
const headerLimit = 64 << 10

// exchange sends req and reads the header of the final answer. After a 101, early is
// what the backend sent behind it; after any other answer that is part of the body.
func exchange(conn net.Conn, req *http.Request) (res *http.Response, early []byte, err error) {
	if c, ok := conn.(interface{ ReportOnce() }); ok {
		c.ReportOnce() // the answer, most often
	}
	if err := send(conn, req); err != nil {
		return nil, nil, fmt.Errorf("send the request: %w", err)
	}
	r := answerReaders.Get().(*answerReader)
	r.limited = io.LimitedReader{R: conn, N: headerLimit}
	for {
		if res = r.switching(); res != nil {
			break
		}
		res, err = http.ReadResponse(r.Reader, req)
		if err != nil && r.limited.N <= 0 {
			err = fmt.Errorf("header of more than %d bytes", headerLimit)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the answer: %w", err)
		}
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		trace := httptrace.ContextClientTrace(req.Context())
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
				return nil, nil, err
			}
		}
	}
	if res.StatusCode != http.StatusSwitchingProtocols { // the body goes on to read from r
		r.limited.N = math.MaxInt64
		return res, nil, nil
	}
	early = buffered(r.Reader)
	r.limited.R = nil
	r.Reset(&r.limited)
	answerReaders.Put(r)
	return res, early, nil
}

// send writes req.
func send(conn net.Conn, req *http.Request) error {
	if httptrace.ContextClientTrace(req.Context()) == nil {
		room := httphead.Borrow()
		defer httphead.Release(room)
		if head := httphead.AppendRequest(*room, req, req.URL.Host); head != nil {
			*room = head
			_, err := conn.Write(head)
			return err
		}
	}
	w := writers.Get().(*bufio.Writer)
	w.Reset(conn)
	err := req.Write(w)
	if err == nil {
		err = w.Flush()
	}
	w.Reset(nil)
	writers.Put(w)
	return err
}

// An answerReader reads the answer to a handshake. The limit is below the buffer, since it
// would not bind http.ReadResponse above it.
type answerReader struct {
	*bufio.Reader // a small one, since many handshakes may wait at once
	limited       io.LimitedReader
}

// switching returns a 101 that says nothing unusual of its connection and comes in one piece, as
// most do. It returns nil for any other answer, of which it takes no byte.
func (r *answerReader) switching() *http.Response {
	if _, err := r.Peek(1); err != nil {
		return nil
	}
	there, _ := r.Peek(r.Buffered())
	end := bytes.Index(there, []byte("\r\n\r\n"))
	if end < 0 {
		return nil
	}
	res := httphead.ParseAnswer(string(there[:end+len("\r\n")]))
	if res == nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header["Content-Length"] != nil ||
		len(res.Header["Connection"]) != 1 || !strings.EqualFold(res.Header.Get("Connection"), "Upgrade") {
		return nil
	}
	_, _ = r.Discard(end + len("\r\n\r\n"))
	return res
}

var (
	writers       = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
	answerReaders = sync.Pool{New: func() any {
		r := &answerReader{}
		r.Reader = bufio.NewReaderSize(&r.limited, 1<<10)
		return r
	}}
)

// buffered returns what r has read ahead of a handshake's end, nil if that is nothing.
func buffered(r *bufio.Reader) []byte {
	if r.Buffered() == 0 {
		return nil
	}
	early, _ := r.Peek(r.Buffered())
	return bytes.Clone(early)
}
