package socketio_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/process"
)

// Two peers are processes that send each other messages with a number and 100
// bytes, through two rooms. The peer in the room follow answers each number other
// than 0 with the same number. The peer in the room lead sends as many messages as
// it is told to, and waits for the answer to the last message of each batch. Neither
// accepts commands before the leader has received an answer.
const lead, follow = "lead", "follow"

var padding = strings.Repeat("x", 100)

// A command is a line of JSON on the standard input of a peer.
type command struct {
	ID       int `json:"id"`
	Messages int `json:"messages"`
	Batch    int `json:"batch"`
}

// A report is a line that a peer prints when a command was carried out.
type report struct {
	ID    int             `json:"id"`
	Times []time.Duration `json:"times"` // of each batch, there and back
	CPU   time.Duration   `json:"cpu"`   // of the process, since it began
}

// A carrier carries messages from one process to another.
type carrier struct {
	emit    func(ctx context.Context, room, number string) error
	receive func(ctx context.Context, room string, got func(number string)) error
}

// carriers are the carriers of a peer in Go, by name.
var carriers = map[string]func(*redis.Client) carrier{
	"limpet current":   func(c *redis.Client) carrier { return bridged(c, socketio.PubSub{}) },
	"limpet sharded":   func(c *redis.Client) carrier { return bridged(c, socketio.Sharded{}) },
	"limpet streams":   func(c *redis.Client) carrier { return bridged(c, socketio.Streams{}) },
	"go-redis current": func(c *redis.Client) carrier { return channels(c.Publish, c.Subscribe) },
	"go-redis sharded": func(c *redis.Client) carrier { return channels(c.SPublish, c.SSubscribe) },
	"go-redis streams": streams,
}

// bePeer is the process of a peer. Its arguments are the address of Redis, the name
// of the carrier and the room.
func bePeer(addr, name, room string) error {
	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	c := carriers[name](client)
	ctx := context.Background()
	heard := make(chan string, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- c.receive(ctx, room, func(number string) {
			if room == lead {
				heard <- number
			} else if number != "0" {
				if err := c.emit(ctx, lead, number); err != nil {
					ended <- err
				}
			}
		})
	}()
	last := 0
	if room == lead {
		for found := false; !found; {
			last++
			if err := c.emit(ctx, follow, strconv.Itoa(last)); err != nil {
				return err
			}
			select {
			case <-heard:
				found = true
			case <-time.After(50 * time.Millisecond):
			case err := <-ended:
				return err
			}
		}
	}

	commands, reports := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var todo command
		if err := commands.Decode(&todo); err != nil {
			return nil // the benchmark has ended
		}
		r := report{ID: todo.ID}
		for sent := 0; sent < todo.Messages; sent += todo.Batch {
			start := time.Now()
			last++
			number := strconv.Itoa(last)
			for i := range todo.Batch {
				n := "0"
				if i == todo.Batch-1 {
					n = number
				}
				if err := c.emit(ctx, follow, n); err != nil {
					return err
				}
			}
			for answer := ""; answer != number; {
				select {
				case answer = <-heard:
				case err := <-ended:
					return err
				}
			}
			r.Times = append(r.Times, time.Since(start))
		}
		r.CPU = process.CPU()
		if err := reports.Encode(r); err != nil {
			return err
		}
	}
}

// bridged is a carrier with a Bridge that has one member in the room.
func bridged(client *redis.Client, adapter socketio.Adapter) carrier {
	h, err := hub.New(nil, nil)
	if err != nil {
		panic(err)
	}
	b, err := socketio.NewBridge(h, client, adapter, nil)
	if err != nil {
		panic(err)
	}
	return carrier{
		emit: func(ctx context.Context, room, number string) error {
			return b.To(room).Emit(ctx, "ev", number, padding)
		},
		receive: func(ctx context.Context, room string, got func(string)) error {
			ended := make(chan error, 1)
			go func() { ended <- b.Run(ctx) }()
			if _, err := h.Connect(ctx, listening(got), hub.MemberOptions{Rooms: []string{room}}); err != nil {
				return err
			}
			return <-ended
		},
	}
}

// listening is the connection of a member that reads the number in each message.
type listening func(number string)

func (l listening) Send(_ context.Context, messages []*hub.Frame) error {
	for _, f := range messages {
		_ = f.Bytes()
		l(string(bytes.SplitN(f.Payload(), []byte{'"'}, 5)[3])) // ["ev","1","xxx"]
	}
	return nil
}

func (listening) Close(context.Context, int, string) error { return nil }

// channels is a carrier with go-redis alone.
func channels(
	publish func(context.Context, string, any) *redis.IntCmd,
	subscribe func(context.Context, ...string) *redis.PubSub,
) carrier {
	return carrier{
		emit: func(ctx context.Context, room, number string) error {
			return publish(ctx, room, number+" "+padding).Err()
		},
		receive: func(ctx context.Context, room string, got func(string)) error {
			sub := subscribe(ctx, room)
			for {
				m, err := sub.ReceiveMessage(ctx)
				if err != nil {
					return err
				}
				number, _, _ := strings.Cut(m.Payload, " ")
				got(number)
			}
		},
	}
}

// streams is a carrier with go-redis alone and a stream for each room.
func streams(client *redis.Client) carrier {
	return carrier{
		emit: func(ctx context.Context, room, number string) error {
			return client.XAdd(ctx, &redis.XAddArgs{
				Stream: room, MaxLen: 10_000, Approx: true, Values: []string{"number", number, "data", padding},
			}).Err()
		},
		receive: func(ctx context.Context, room string, got func(string)) error {
			for last := "$"; ; {
				read, err := client.XRead(ctx, &redis.XReadArgs{Streams: []string{room, last}, Count: 100}).Result()
				if err != nil {
					return err
				}
				for _, e := range read[0].Messages {
					got(fmt.Sprint(e.Values["number"]))
					last = e.ID
				}
			}
		},
	}
}
