//go:build unix

package chaos

import (
	"io"
	"time"
)

// checkVitals fails the test if a gateway, whose clients have left, still uses more than
// when it began.
func (c *cluster) checkVitals() {
	for _, g := range c.balancer.gateways {
		var v vitals
		var err error
		first := c.first[g.id]
		for began := time.Now(); time.Since(began) < 6*time.Second; time.Sleep(100 * time.Millisecond) {
			if v, err = c.vitals(g); err != nil || v.within(first) {
				break
			}
		}
		switch {
		case err != nil:
			c.t.Errorf("gateway %s: %v", g.id, err)
		case !v.within(first):
			c.t.Log("first found: leak, at the end")
			c.t.Errorf("LEAK: gateway %s had %+v when it was idle, and has %+v now\n%s", g.id, first, v, c.stacks(g))
		}
	}
}

// within tells whether v is about what it was first: no tunnel or request is left, and no
// more goroutines and files than those of the test's own calls and of Redis.
func (v vitals) within(first vitals) bool {
	return v.Tunnels == 0 && v.Requests == 0 &&
		v.Goroutines <= first.Goroutines+12 && v.Files <= first.Files+16 && v.Heap <= first.Heap+8<<20
}

func (c *cluster) stacks(g *replica) string {
	res, err := c.web.Get("http://" + g.admin + "/stacks")
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 8<<10))
	return string(b)
}
