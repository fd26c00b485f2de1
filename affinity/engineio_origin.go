package affinity

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// origins are the sites whose pages may read the answers of nodes, as the nodes themselves
// have said it by CORS when they opened sessions. Nodes of version 3 allow all sites, and
// those of later versions what the application tells the package cors, which may be nothing.
type origins struct {
	once sync.Once
	all  *shards[*allowance]
}

// An allowance has the CORS fields of a node's answer to a page of one site.
type allowance struct {
	origin, credentials, vary []string
	learnt                    time.Time
}

const (
	originsMax = 1000 // how many sites are remembered
	originMax  = 256  // the longest one
	// allowanceFor is how often an allowance is looked at again at most, so that most
	// sessions take no lock for writing.
	allowanceFor = time.Second
)

// shard returns the part that has the site.
func (o *origins) shard(site string) *shard[*allowance] {
	o.once.Do(func() { o.all = newShards[*allowance](originsMax) })
	return o.all.of(site)
}

// learn notes what a node's answer allows the site of the request. What a node doesn't allow
// any more is forgotten.
func (o *origins) learn(r *http.Request, answer http.Header) {
	site := r.Header.Get("Origin")
	if site == "" || len(site) > originMax {
		return
	}
	allowed := answer["Access-Control-Allow-Origin"]
	s := o.shard(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(allowed) != 1 || allowed[0] != "*" && allowed[0] != site {
		s.pins.Remove(site)
		return
	}
	if a, ok := s.pins.Get(site); ok && time.Since(a.learnt) < allowanceFor {
		return
	}
	a := &allowance{origin: []string{strings.Clone(allowed[0])}, learnt: time.Now()}
	if answer.Get("Access-Control-Allow-Credentials") == "true" && allowed[0] != "*" {
		a.credentials = []string{"true"}
	}
	if allowed[0] != "*" {
		a.vary = []string{"Origin"}
	}
	s.pins.Add(strings.Clone(site), a)
}

// allow adds the fields to h that let the site of the request read an answer of the
// gateway's own, if the nodes would let it.
func (o *origins) allow(h http.Header, r *http.Request) {
	site := r.Header.Get("Origin")
	if site == "" || len(site) > originMax {
		return
	}
	s := o.shard(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.pins.Get(site)
	if !ok {
		return
	}
	for name, values := range map[string][]string{
		"Access-Control-Allow-Origin": a.origin, "Access-Control-Allow-Credentials": a.credentials, "Vary": a.vary,
	} {
		if values != nil {
			h[name] = append([]string(nil), values...)
		}
	}
}
