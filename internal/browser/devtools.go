package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/limpet-go/limpet/internal/process"
)

// devtools is a client of the Chrome DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol/) that makes calls and
// keeps what pages complain about. Its methods are safe for concurrent use.
type devtools struct {
	conn *websocket.Conn
	done chan struct{} // closed when read has returned

	mu      sync.Mutex
	last    int
	waiting map[int]chan<- answer // by the calls' numbers
	said    map[string][]string   // complaints, by the sessions of the pages
}

type params map[string]any

type answer struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
}

// dial connects to a browser.
func dial(ctx context.Context, url string) (*devtools, error) {
	conn, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(-1)
	d := &devtools{conn: conn, done: make(chan struct{}), waiting: make(map[int]chan<- answer), said: make(map[string][]string)}
	go d.read() // ends with the connection
	return d, nil
}

// close closes the connection.
func (d *devtools) close() {
	d.conn.CloseNow()
	<-d.done
}

func (d *devtools) read() {
	defer close(d.done)
	for {
		var message struct {
			answer
			event
		}
		if err := wsjson.Read(context.Background(), d.conn, &message); err != nil {
			return
		}
		a, complaint := message.answer, message.complaint()
		d.mu.Lock()
		if complaint != "" {
			d.said[message.SessionID] = append(d.said[message.SessionID], complaint)
		}
		if wait, ok := d.waiting[a.ID]; ok { // events have no number
			wait <- a
		}
		d.mu.Unlock()
	}
}

// call calls a method in a session, "" for the browser's own, and decodes the
// result into out unless that is nil.
func (d *devtools) call(session, method string, in params, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), process.Patience)
	defer cancel()
	wait := make(chan answer, 1)
	d.mu.Lock()
	d.last++
	id := d.last
	d.waiting[id] = wait
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.waiting, id)
		d.mu.Unlock()
	}()
	if err := wsjson.Write(ctx, d.conn, struct {
		ID        int    `json:"id"`
		SessionID string `json:"sessionId,omitempty"`
		Method    string `json:"method"`
		Params    params `json:"params,omitempty"`
	}{id, session, method, in}); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a := <-wait:
		switch {
		case a.Error != nil:
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		case out != nil:
			return json.Unmarshal(a.Result, out)
		}
		return nil
	case <-d.done:
		return fmt.Errorf("%s: the browser has ended", method)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}
