//go:build unix

package chaos

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// roleVariable tells a process of the test binary what it is: node or gateway, and its
// settings as JSON.
const roleVariable = "LIMPET_CHAOS_ROLE"

// runRole runs the node or gateway that this process is to be. It reports false if it is
// none.
func runRole() (ran bool, err error) {
	role, settings, _ := strings.Cut(os.Getenv(roleVariable), " ")
	switch role {
	case "node":
		var s nodeSettings
		json.Unmarshal([]byte(settings), &s)
		return true, runNode(s)
	case "gateway":
		var s gatewaySettings
		json.Unmarshal([]byte(settings), &s)
		return true, runGateway(s)
	}
	return false, nil
}

// startRole starts a process of the test binary.
func startRole(t testing.TB, role string, settings any) *process.Process {
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role+" "+string(text))
	return process.Start(t, cmd)
}

// A cluster is the backends, the gateways and what is between them.
type cluster struct {
	t        testing.TB
	history  *history
	redis    *redistest.Server // nil without one
	balancer *loadBalancer
	backends map[string]*backend
	gateways map[string]*process.Process
	web      *http.Client

	mu     sync.Mutex
	joined []string          // IDs of the backends that the gateways know
	nodes  []nodeProcess     // all that were started
	first  map[string]vitals // of gateways, when they were idle
}

// A backend is a node with its links, one from each gateway.
type backend struct {
	id    string
	links map[string]*link // by gateway
	boots int
	node  nodeProcess
}

// newCluster starts all but the backends that are to join later, and waits until the
// gateways are ready.
func newCluster(t testing.TB, h *history, redis *redistest.Server, backends, later []string, gateways []string) *cluster {
	c := &cluster{
		t: t, history: h, redis: redis, balancer: &loadBalancer{}, backends: make(map[string]*backend),
		gateways: make(map[string]*process.Process), web: &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second},
		joined: backends, first: make(map[string]vitals),
	}
	t.Cleanup(c.web.CloseIdleConnections)
	for _, id := range append(backends[:len(backends):len(backends)], later...) {
		b := &backend{id: id, links: make(map[string]*link)}
		for _, g := range gateways {
			l, err := newLink()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(l.close)
			b.links[g] = l
		}
		c.backends[id] = b
	}
	for _, id := range backends {
		c.boot(id)
	}
	for _, id := range gateways {
		g := &replica{id: id, addr: freeAddr(t), admin: freeAddr(t)}
		c.balancer.gateways = append(c.balancer.gateways, g)
		c.startGateway(g)
	}
	for _, g := range c.balancer.gateways {
		c.awaitReady(g)
		v, err := c.vitals(g)
		if err != nil {
			t.Fatal(err)
		}
		c.first[g.id] = v
	}
	return c
}

func freeAddr(t testing.TB) string {
	l, err := listenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A nodeProcess is the process of a node.
type nodeProcess struct {
	*process.Process
	addr string
}

func startNode(t testing.TB, s nodeSettings) nodeProcess {
	p := startRole(t, "node", s)
	events := process.Await(t, p, "its address", func(events []nodeEvent) bool { return len(events) > 0 })
	return nodeProcess{p, events[0].Addr}
}

// boot starts a node, and leads the links to it.
func (c *cluster) boot(id string) {
	b := c.backends[id]
	b.boots++
	b.node = startNode(c.t, nodeSettings{ID: id, Boot: fmt.Sprintf("%s#%d", id, b.boots)})
	c.mu.Lock()
	c.nodes = append(c.nodes, b.node)
	c.mu.Unlock()
	for _, l := range b.links {
		l.set(b.node.addr, "")
	}
}

// unplug has the links refuse connections, as the kernel does for a process that is gone.
func (b *backend) unplug() {
	for _, l := range b.links {
		l.set("", faultRefuse)
	}
}

func (c *cluster) startGateway(g *replica) {
	s := gatewaySettings{ID: g.id, Addr: g.addr, Admin: g.admin}
	c.mu.Lock()
	for _, id := range c.joined {
		s.Backends = append(s.Backends, c.spec(id, g.id))
	}
	c.mu.Unlock()
	if c.redis != nil {
		s.Redis = "redis://" + c.redis.Addr
	}
	c.gateways[g.id] = startRole(c.t, "gateway", s)
}

// spec returns a backend as one gateway reaches it.
func (c *cluster) spec(id, gateway string) string {
	return id + "=http://" + c.backends[id].links[gateway].addr
}

// awaitReady waits until a gateway takes clients and sees all backends well that are there.
func (c *cluster) awaitReady(g *replica) {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		var state struct {
			Backends []struct{ State string }
		}
		err := c.call(g, http.MethodGet, "/limpet/api/state", "", &state)
		up := 0
		for _, b := range state.Backends {
			if b.State == "up" {
				up++
			}
		}
		if err == nil && up >= 2 && (up == len(state.Backends) || time.Since(began) > 2*time.Second) {
			return
		}
		if time.Since(began) > process.Patience {
			c.t.Fatalf("gateway %s isn't ready: %v, %+v", g.id, err, state)
		}
	}
}

// call calls a gateway's operator's side.
func (c *cluster) call(g *replica, method, target, body string, result any) error {
	req, err := http.NewRequest(method, "http://"+g.admin+target, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.web.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s of %s: %s", method, target, g.id, res.Status)
	}
	if result != nil {
		return json.NewDecoder(res.Body).Decode(result)
	}
	return nil
}

// operate carries out an operator's decision at one gateway that is ready, which tells the
// others over the bus; and at all of them if there is no bus.
func (c *cluster) operate(random *rand.Rand, id, what, body string) {
	var ready []*replica
	for _, g := range c.balancer.gateways {
		if g.ready.Load() {
			ready = append(ready, g)
		}
	}
	if len(ready) == 0 {
		c.t.Errorf("no gateway is ready: the operator can't %s %s", what, id)
		return
	}
	if c.redis != nil {
		i := random.IntN(len(ready))
		ready = ready[i : i+1]
	}
	for _, g := range ready {
		c.operateAt(g, id, what, body)
	}
}

func (c *cluster) operateAt(g *replica, id, what, body string) {
	if err := c.call(g, http.MethodPost, "/limpet/api/backends/"+id+"/"+what, cmp.Or(body, "{}"), nil); err != nil {
		c.t.Errorf("the operator can't %s %s: %v", what, id, err)
	}
}

// join starts a backend and adds it to the gateways.
func (c *cluster) join(id string) {
	c.boot(id)
	c.mu.Lock()
	c.joined = append(c.joined[:len(c.joined):len(c.joined)], id)
	c.mu.Unlock()
	for _, g := range c.balancer.gateways {
		target := "/join?backend=" + url.QueryEscape(c.spec(id, g.id))
		if err := c.call(g, http.MethodPost, target, "", nil); err != nil && g.ready.Load() {
			c.t.Errorf("%s can't join: %v", id, err)
		}
	}
}

func (c *cluster) vitals(g *replica) (v vitals, err error) {
	err = c.call(g, http.MethodGet, "/vitals", "", &v)
	return v, err
}

// end ends the gateways in order. One that has found a data race fails then.
func (c *cluster) end() {
	for _, p := range c.gateways {
		p.Signal(c.t, syscall.SIGTERM)
	}
	for id, p := range c.gateways {
		if code := p.End(c.t); code != 0 {
			c.t.Errorf("gateway %s ended with code %d", id, code)
		}
	}
}

// executed returns the POSTs that nodes have executed: how often, by client and number.
func (c *cluster) executed() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	times := make(map[string]int)
	for _, node := range c.nodes {
		for _, e := range process.Printed[nodeEvent](node.Process) {
			if e.Client != "" {
				times[fmt.Sprintf("%s #%d", e.Client, e.N)]++
			}
		}
	}
	return times
}
