//go:build unix

package hub_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

var away = flag.Duration("away", 3*time.Second, "how long clients are away in TestAway, while everything else fails in turn")

// Clients are away, each in its own way, while processes of nodes are killed and stopped and
// Redis is killed, under a hundred messages a second to each of several rooms. Each of them
// gets each message once and in order. If Redis has lost its data they are told, in the place
// where messages are missing.
//
// A minute of it, for the figures:
//
//	go test ./bus/hub -run 'TestAway$' -v -args -away 60s
func TestAway(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		redis []string
		lost  bool
	}{
		{"Redis keeps its data", []string{"--appendonly", "yes", "--appendfsync", "always"}, false},
		{"Redis loses its data", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := startAway(t, tt.redis...)
			c.happen(t)
			c.judge(t, tt.lost)
		})
	}
}

// A cluster is a hub whose nodes are processes, and clients of it.
type cluster struct {
	redis      *redistest.Server
	nodes      []*process.Process
	travellers map[string]*traveller
	page       *process.Process // runs client.js
	sent       *sent
	stop       []func() // each ends a publisher of this process
	here       *hub.Hub
}

// startAway starts everything, and returns when each client has got something in each room.
func startAway(t *testing.T, redisArgs ...string) *cluster {
	c := &cluster{redis: redistest.Start(t, redisArgs...), sent: &sent{}, travellers: make(map[string]*traveller)}
	for range 3 {
		c.startNode(t)
	}
	for i, name := range []string{"of the node that is killed", "of the node that is stopped", "that stays", "that is cut off"} {
		c.travellers[name] = newTraveller(c.addresses(t), i)
		t.Cleanup(c.travellers[name].end)
	}
	c.startPage(t)
	c.awaitAll(t, "all rooms", func(list []arrival) bool {
		n := 0
		for _, x := range list {
			if x.Type == "joined" {
				n++
			}
		}
		return n >= len(awayRooms)
	})
	// Two publishers of this process, and one for two rooms at once, live through all of it: they
	// alone send a hundred messages a second to each room. So do the nodes, until they are killed.
	h, err := newAwayHub(c.redis.Client(t), *away+20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(runHub(t, h))
	c.here = h
	for _, name := range []string{"ann", "ben"} {
		for _, room := range awayRooms {
			c.publish(name+"/"+room, 20*time.Millisecond, room)
		}
	}
	c.publish("cid/a", 50*time.Millisecond, "a", "b") // comes to a, by which it is for the clients first
	for _, node := range c.nodes {
		node.Write(t, "publish")
	}
	c.awaitAll(t, "messages to all rooms", func(list []arrival) bool {
		rooms := make(map[string]bool)
		for _, x := range list {
			rooms[x.Room] = rooms[x.Room] || x.Type == "message"
		}
		return rooms["a"] && rooms["b"] && rooms["c"]
	})
	return c
}

func (c *cluster) publish(series string, every time.Duration, rooms ...string) {
	halt, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		publishSeries(c.here, series, every, rooms, halt, c.sent.add)
	}()
	c.stop = append(c.stop, func() { close(halt); <-ended })
}

func (c *cluster) startNode(t *testing.T) *process.Process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=node%d redis://%s", awayNode, len(c.nodes)+1, c.redis.Addr))
	node := process.Start(t, cmd)
	c.nodes = append(c.nodes, node)
	return node
}

// addresses returns the addresses of all nodes.
func (c *cluster) addresses(t *testing.T) (list []string) {
	for _, node := range c.nodes {
		said := process.Await(t, node, "its address", func(said []nodeSays) bool { return len(said) > 0 })
		list = append(list, said[0].Address)
	}
	return list
}

// pageScript is a page without a browser. Its argument is where client.js is, and each line of
// its standard input is the address of a node. It prints what it is told.
const pageScript = `
const { Connection } = await import(process.argv[1]);
const { createInterface } = await import('node:readline');
const nodes = [];
let next = 0;
const learn = (line) => nodes.push(JSON.parse(line));
await new Promise((known) => createInterface({ input: process.stdin }).on('line', (line) => known(learn(line))));
const limpet = new Connection(() => 'ws://' + nodes[next++ % nodes.length], { least: 50, most: 500 });
for (const type of ['message', 'missed', 'joined', 'left'])
	limpet.addEventListener(type, ({ room, data, recovered }) => console.log(JSON.stringify({ type, room, data, recovered })));
`

// startPage starts client.js in Node, if there is one.
func (c *cluster) startPage(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Log("without client.js: " + err.Error())
		return
	}
	script, err := os.ReadFile("client.js")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "client.mjs")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		t.Fatal(err)
	}
	c.page = process.Start(t, exec.Command(node, "--experimental-websocket", "--input-type=module", "--eval", pageScript, file))
	for _, node := range c.addresses(t) {
		c.page.Write(t, node)
	}
}

// awaitAll waits until done is content with what each client was told.
func (c *cluster) awaitAll(t *testing.T, what string, done func([]arrival) bool) {
	t.Helper()
	for name, tr := range c.travellers {
		if !await(t, what+" of the client "+name, func() bool { return done(tr.told()) }) {
			t.FailNow()
		}
	}
	if c.page != nil {
		process.Await(t, c.page, what, done)
	}
}

// happen lets clients be away for as long as the flag says. Meanwhile all that can fail does,
// one after the other.
func (c *cluster) happen(t *testing.T) {
	cut := c.travellers["that is cut off"]
	cut.cut()
	if c.page != nil {
		c.page.Signal(t, syscall.SIGSTOP) // as a laptop that was closed
	}
	step := *away / 6
	time.Sleep(step)
	c.nodes[0].Kill()
	time.Sleep(step)
	c.redis.Kill()
	time.Sleep(step)
	c.redis.Restart(t)
	time.Sleep(step)
	c.nodes[1].Signal(t, syscall.SIGSTOP)
	c.startNode(t).Write(t, "publish")
	late := c.addresses(t)[3]
	for _, tr := range c.travellers {
		tr.learn(late)
	}
	time.Sleep(2 * step)
	cut.back()
	if c.page != nil {
		c.page.Write(t, late)
		c.page.Signal(t, syscall.SIGCONT)
	}
	time.Sleep(step)
	c.nodes[1].Signal(t, syscall.SIGCONT)
	time.Sleep(step)
	c.settle(t)
}

// settle ends all publishers, and waits until what they have sent can be expected.
func (c *cluster) settle(t *testing.T) {
	for i, node := range c.nodes {
		if i > 0 { // the first one was killed
			node.Write(t, "stop")
			process.Await(t, node, "the end of its publishers", func(said []nodeSays) bool { return said[len(said)-1].Done })
		}
		for _, said := range process.Printed[nodeSays](node) {
			if said.Series != "" {
				c.sent.add(said.Series, said.Number)
			}
		}
	}
	for _, stop := range c.stop {
		stop()
	}
	for _, room := range awayRooms {
		send(t, c.here, inRooms(room), "end/"+room+" 1")
	}
	c.awaitAll(t, "the end", func(list []arrival) bool {
		n := 0
		for _, x := range list {
			if strings.HasPrefix(x.Data, "end/") {
				n++
			}
		}
		return n >= len(awayRooms)
	})
}

// judge checks what each client was told.
func (c *cluster) judge(t *testing.T, lost bool) {
	all := make(map[string][]arrival)
	for name, tr := range c.travellers {
		all[name] = tr.told()
	}
	if c.page != nil {
		all["client.js"] = process.Printed[arrival](c.page)
	}
	total := 0
	for _, numbers := range c.sent.numbers {
		total += len(numbers)
	}
	first := all["that stays"]
	for name, list := range all {
		wrong := c.sent.check(list)
		if len(wrong) > 0 {
			t.Errorf("the client %s: %d faults: %s", name, len(wrong), strings.Join(wrong[:min(len(wrong), 10)], "; "))
		}
		if !inOneOrder(first, list) {
			t.Errorf("the client %s has got messages in another order than the one that stays", name)
		}
		n := make(map[string]int)
		for _, x := range list {
			n[x.Type]++
			if x.Recovered {
				n["recovered"]++
			}
		}
		t.Logf("the client %s: %d messages of %d, was told %d times that it had missed some, recovered %d times a room",
			name, n["message"], total+len(awayRooms), n["missed"], n["recovered"])
		if !lost && n["missed"] > 0 {
			t.Errorf("the client %s was told that messages are missing, but nothing was lost", name)
		}
		if lost && n["missed"] < len(awayRooms) {
			t.Errorf("the client %s wasn't told of what Redis has lost", name)
		}
	}
}
