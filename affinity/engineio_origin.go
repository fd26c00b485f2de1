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
	origin      string // * for all sites
	credentials bool
	learnt      time.Time
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

// learn notes what a node's answer to a request of this version of Engine.IO allows the site
// of the request. What a node doesn't allow any more is forgotten. From requests without a
// site, for which the site "" stands, only the rule of version 3 is learnt.
func (o *origins) learn(r *http.Request, answer http.Header, version string) {
	site := r.Header.Get("Origin")
	if site == "" && version == "4" || len(site) > originMax || queryParam(r.URL.RawQuery, "j") != "" {
		return // JSONP has no CORS
	}
	allowed := answer["Access-Control-Allow-Origin"]
	s := o.shard(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(allowed) != 1 || allowed[0] != "*" && (allowed[0] != site || site == "") {
		s.pins.Remove(site)
		return
	}
	if a, ok := s.pins.Get(site); ok && time.Since(a.learnt) < allowanceFor {
		return
	}
	a := &allowance{origin: strings.Clone(allowed[0]), learnt: time.Now()}
	a.credentials = a.origin != "*" && answer.Get("Access-Control-Allow-Credentials") == "true"
	s.pins.Add(strings.Clone(site), a)
}

// allow adds the fields to h that let the site of the request, which is of this version of
// Engine.IO, read an answer of the gateway's own, if the nodes would let it.
func (o *origins) allow(h http.Header, r *http.Request, version string) {
	site := r.Header.Get("Origin")
	if len(site) > originMax {
		return
	}
	a, ok := o.of(site)
	if !ok && site != "" && version != "4" {
		if _, all := o.of(""); all { // the server of version 3 names each site
			a, ok = allowance{origin: site, credentials: true}, true
		}
	}
	if !ok || site == "" && version == "4" {
		return
	}
	h.Set("Access-Control-Allow-Origin", a.origin)
	if a.origin != "*" {
		h.Set("Vary", "Origin")
	}
	if a.credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// of returns what nodes allow a site.
func (o *origins) of(site string) (allowance, bool) {
	s := o.shard(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.pins.Get(site); ok {
		return *a, true
	}
	return allowance{}, false
}
