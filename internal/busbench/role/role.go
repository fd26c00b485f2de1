//go:build linux

// Package role is a process of the benchmark of the bus: a publisher, a subscriber or
// a hub with members. It does what the lines of JSON on its standard input say, and
// answers each with a line on its standard output. node/role.js speaks the same.
package role

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// A Command is one line of the input.
type Command struct {
	// Publish is the number of messages to publish on Topic, of Size bytes, as many at
	// a time as there are Publishers. With a Rate they are published at that many a
	// second, and have the time in them.
	Publish    int    `json:"publish,omitempty"`
	Topic      string `json:"topic,omitempty"`
	Publishers int    `json:"publishers,omitempty"`
	Size       int    `json:"size,omitempty"`
	Rate       int    `json:"rate,omitempty"`
	// Await is the number of messages that must have come since the process began
	// before it answers. It doesn't wait for more than Patience.
	Await int `json:"await,omitempty"`
}

// Patience is how long a role waits for messages.
const Patience = 15 * time.Second

// A Report is one line of the output. The first one says that the process is there.
type Report struct {
	Error string  `json:"error,omitempty"`
	Got   int     `json:"got,omitempty"`   // messages since the process began
	Times []int64 `json:"times,omitempty"` // nanoseconds that each message with a time in it took, since the last report
	Addr  string  `json:"addr,omitempty"`  // of the hub, in the first report
}

// A Peer is what is measured.
type Peer struct {
	// Publish returns when the message is taken.
	Publish func(ctx context.Context, topic string, data []byte) error
	// Subscribe calls got with each message, framed for a client if the peer has
	// clients. It returns at once or when it has ended.
	Subscribe func(ctx context.Context, topic string, got func(message []byte)) error
	// Members serves WebSockets that are in the room Room. Publish sends to them.
	Members http.Handler
}

// Room is the topic of a hub with members.
const Room = "room"

// Run is the process. Its arguments are what it is (publisher, subscriber or members)
// and the topic of a subscriber.
func Run(ctx context.Context, p *Peer, in io.Reader, out io.Writer, as, topic string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hello, heard, ended := Report{}, &counter{}, make(chan error, 1)
	switch as {
	case "publisher":
	case "subscriber":
		go func() {
			if err := p.Subscribe(ctx, topic, heard.got); err != nil {
				ended <- err
			}
		}()
	case "members":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		hello.Addr = l.Addr().String()
		server := &http.Server{Handler: p.Members, ReadHeaderTimeout: time.Minute}
		go func() { ended <- server.Serve(l) }()
		defer server.Close()
	default:
		return fmt.Errorf("no role %q", as)
	}
	commands, reports := json.NewDecoder(in), json.NewEncoder(out)
	for r := hello; ; {
		if err := reports.Encode(r); err != nil {
			return err
		}
		var c Command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r = Report{}
		if c.Publish > 0 {
			if err := publish(ctx, p, c); err != nil {
				r.Error = err.Error()
			}
		}
		if as == "subscriber" {
			r.Got, r.Times = heard.await(c.Await)
		}
		select {
		case err := <-ended:
			return err
		default:
		}
	}
}

// Main runs Run for the program of a peer, whose arguments are the peer, the address of
// Redis, and those of Run.
func Main(args []string, peer func(ctx context.Context, name, addr string) (*Peer, error)) error {
	if len(args) < 3 {
		return errors.New("arguments: PEER ADDRESS ROLE [TOPIC]: internal/busbench starts this")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := peer(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	return Run(ctx, p, os.Stdin, os.Stdout, args[2], strings.Join(args[3:], ""))
}

// A message is a string of JSON that begins with this, and the time when it was sent as
// a number of timeDigits, which is 0 if nobody wants to know.
const (
	begin      = "t="
	timeDigits = 19
)

// sentAt returns the time in a message, which may be framed. It is false for what isn't
// a message.
func sentAt(message []byte) (int64, bool) {
	i := bytes.Index(message, []byte(begin))
	if i < 0 || len(message) < i+len(begin)+timeDigits {
		return 0, false
	}
	var at int64
	for _, digit := range message[i+len(begin):][:timeDigits] {
		at = 10*at + int64(digit-'0')
	}
	return at, true
}

// IsMessage reports whether a client got a message, and not something else of its protocol.
func IsMessage(message []byte) bool {
	_, ok := sentAt(message)
	return ok
}

// newMessage returns a message of this size.
func newMessage(size int, at int64) []byte {
	m := fmt.Appendf(make([]byte, 0, size), `"%s%0*d`, begin, timeDigits, at)
	for len(m) < size-1 {
		m = append(m, 'x')
	}
	return append(m, '"')
}
