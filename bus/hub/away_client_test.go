package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus/hub"
)

// A traveller is a client that speaks hub.Protocol. When its node is gone or silent it goes on
// at the next one, with the positions that it has.
type traveller struct {
	ctx   context.Context
	stop  context.CancelFunc
	ended chan struct{}

	mu        sync.Mutex
	nodes     []string
	next      int // the node to go to
	positions map[string]string
	list      []arrival
	silence   time.Duration      // after which its node is taken for dead
	leave     context.CancelFunc // ends the connection that it has
	online    chan struct{}      // closed unless it is cut off
}

// newTraveller returns a client that begins at one of the nodes, by its number.
func newTraveller(nodes []string, first int) *traveller {
	c := &traveller{nodes: slices.Clone(nodes), next: first, positions: make(map[string]string),
		silence: 5 * time.Second, ended: make(chan struct{}), online: make(chan struct{})}
	c.ctx, c.stop = context.WithCancel(context.Background())
	close(c.online)
	go c.run() // until end
	return c
}

func (c *traveller) end() {
	c.stop()
	<-c.ended
}

func (c *traveller) run() {
	defer close(c.ended)
	for c.ctx.Err() == nil {
		c.mu.Lock()
		online := c.online
		c.mu.Unlock()
		select {
		case <-online:
			c.visit()
		case <-c.ctx.Done():
		}
		select {
		case <-time.After(rand.N(50 * time.Millisecond)):
		case <-c.ctx.Done():
		}
	}
}

// visit opens one connection, and keeps what comes on it until it breaks.
func (c *traveller) visit() {
	c.mu.Lock()
	ctx, leave := context.WithCancel(c.ctx)
	c.leave = leave
	node := c.nodes[c.next%len(c.nodes)]
	c.next++
	hello, _ := json.Marshal(map[string]any{"positions": c.positions})
	c.mu.Unlock()
	defer leave()
	dialing, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(dialing, "ws://"+node, &websocket.DialOptions{Subprotocols: []string{hub.Protocol}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	if conn.Write(dialing, websocket.MessageText, hello) != nil {
		return
	}
	for {
		c.mu.Lock()
		reading, cancel := context.WithTimeout(ctx, c.silence)
		c.mu.Unlock()
		_, message, err := conn.Read(reading)
		cancel()
		if err != nil {
			return
		}
		c.take(message)
	}
}

// take keeps what a message says.
func (c *traveller) take(message []byte) {
	head, rest, isMessage := bytes.Cut(message, []byte{'\n'})
	var line struct {
		Room, Missed, Joined, Left, ID string
		Recovered                      bool
		Alive                          float64
	}
	if err := json.Unmarshal(head, &line); err != nil {
		panic(err)
	}
	a := arrival{Room: line.Room + line.Missed + line.Joined + line.Left, Data: string(rest), Recovered: line.Recovered}
	switch {
	case isMessage:
		a.Type = "message"
	case line.Missed != "":
		a.Type = "missed"
	case line.Joined != "":
		a.Type = "joined"
	case line.Left != "":
		a.Type = "left"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if line.ID != "" {
		c.positions[a.Room] = line.ID
	}
	if line.Alive > 0 {
		c.silence = time.Duration(2 * line.Alive * float64(time.Second))
	}
	if a.Type != "" {
		c.list = append(c.list, a)
	}
}

// told returns what the client was told so far.
func (c *traveller) told() []arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list[:len(c.list):len(c.list)]
}

// learn tells the client of another node.
func (c *traveller) learn(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, node)
}

// cut ends the client's connection, and keeps it from opening another one until back.
func (c *traveller) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.online = make(chan struct{})
	if c.leave != nil {
		c.leave()
	}
}

func (c *traveller) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.online)
}
