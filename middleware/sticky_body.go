package middleware

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// reported returns the body of res for a caller of Sticky's, which reports rec when it is
// closed. The record of a tunnel is reported at once, and the tunnel's end at the Close.
func (rec *Record) reported(res *http.Response) io.ReadCloser {
	switch {
	case rec == nil:
		return res.Body
	case res.StatusCode == http.StatusSwitchingProtocols:
		rec.Tunnel = true
		closed, start := rec.closed(), rec.Start
		rec.report()
		return onClose(res.Body, func() { closed(upgrade.Summary{Duration: time.Since(start)}) })
	}
	return &reportedBody{src: res.Body, left: res.ContentLength, whole: res.Body == http.NoBody, rec: rec}
}

// A reportedBody is the body of an answer that Sticky has returned.
type reportedBody struct {
	src io.ReadCloser

	mu    sync.Mutex // a Close may end a Read that waits
	rec   *Record    // nil once it is reported
	left  int64      // bytes that are still to come, below 0 if the length isn't known
	whole bool       // all of it was read
}

var errUnread = errors.New("the answer was closed before its end, as when the client has left")

func (b *reportedBody) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left -= int64(n)
	b.whole = b.whole || err == io.EOF || b.left == 0
	b.rec.sent(n)
	if err != nil && !b.whole {
		b.rec.broke(err)
	}
	return n, err
}

func (b *reportedBody) Close() error {
	err := b.src.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rec == nil {
		return err
	}
	if !b.whole && !b.rec.Broken {
		b.rec.broke(errUnread)
		b.rec.Left = true
	}
	b.rec.report()
	b.rec = nil
	return err
}
