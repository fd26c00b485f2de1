package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// The objects of the API, with the fields that count here. See
// https://kubernetes.io/docs/reference/kubernetes-api/discovery/ and
// https://kubernetes.io/docs/reference/using-api/api-concepts/.
type (
	sliceList struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
			Continue        string `json:"continue"`
		} `json:"metadata"`
		Items []endpointSlice `json:"items"`
	}

	endpointSlice struct {
		Metadata    meta       `json:"metadata"`
		AddressType string     `json:"addressType"`
		Ports       []port     `json:"ports"`
		Endpoints   []endpoint `json:"endpoints"`
	}

	port struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Port     *int   `json:"port"`
	}

	endpoint struct {
		Addresses  []string `json:"addresses"` // of which only the first counts
		Conditions struct {
			Ready       *bool `json:"ready"` // nil means true
			Terminating *bool `json:"terminating"`
		} `json:"conditions"`
		TargetRef *struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"targetRef"`
	}

	meta struct {
		Name            string `json:"name"`
		UID             string `json:"uid"`
		ResourceVersion string `json:"resourceVersion"`
	}

	podObject struct {
		Metadata struct {
			meta
			DeletionGracePeriodSeconds *int `json:"deletionGracePeriodSeconds"`
		} `json:"metadata"`
		Spec struct {
			TerminationGracePeriodSeconds *int `json:"terminationGracePeriodSeconds"`
		} `json:"spec"`
	}

	status struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
)

const maxGrace = 7 * 24 * 60 * 60 // seconds

// grace returns how many seconds the Pod has to end: what its deletion says, which may be
// another time than its specification's. 0 means that it isn't known.
func (p *podObject) grace() int {
	for _, seconds := range []*int{p.Metadata.DeletionGracePeriodSeconds, p.Spec.TerminationGracePeriodSeconds} {
		if seconds != nil {
			return *seconds
		}
	}
	return 0
}

// A pod is an endpoint, as it follows from all slices that have it.
type pod struct {
	id          string
	name        string // of the Pod; "" if it is none
	uid         string
	addr        netip.Addr
	port        uint16
	ready       bool
	terminating bool
}

// merge returns the endpoints of all slices, each once, in the order of their IDs.
func (k *Kubernetes) merge(all []*endpointSlice) ([]*pod, error) {
	byID := make(map[string]*pod)
	var offered []string // ports, for the error
	found := false
	for _, s := range all {
		if s.AddressType != "IPv4" && s.AddressType != "IPv6" {
			continue // FQDN, which Kubernetes itself makes no use of
		}
		number, ok := k.portOf(s)
		if !ok {
			for _, p := range s.Ports {
				offered = append(offered, p.String())
			}
			continue
		}
		found = true
		for i := range s.Endpoints {
			if p := newPod(&s.Endpoints[i], number); p != nil {
				byID[p.id] = k.better(byID[p.id], p)
			}
		}
	}
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("the Service %s has no EndpointSlice: is its name right, and its namespace?", k.Service)
	case !found && len(offered) > 0:
		slices.Sort(offered)
		return nil, fmt.Errorf("the Service %s has no such port as %q: name one of these, behind a colon: %s", k.Service, k.Port, strings.Join(slices.Compact(offered), ", "))
	case len(byID) == 0:
		return nil, fmt.Errorf("the Service %s has no endpoints", k.Service)
	case len(byID) > maxPods:
		return nil, errors.New("the Service has too many endpoints")
	}
	pods := make([]*pod, 0, len(byID))
	for _, p := range byID {
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b *pod) int { return strings.Compare(a.id, b.id) })
	return pods, nil
}

const maxPods = 10_000

func (p port) String() string {
	number := "any"
	if p.Port != nil {
		number = strconv.Itoa(*p.Port)
	}
	return cmp.Or(p.Name, "(unnamed)") + " (" + number + ")"
}

// portOf returns the number of the port that was asked for.
func (k *Kubernetes) portOf(s *endpointSlice) (uint16, bool) {
	asked, err := strconv.Atoi(k.Port)
	byNumber := err == nil
	var fit []int
	for _, p := range s.Ports {
		switch {
		case p.Protocol != "" && p.Protocol != "TCP":
		case p.Port == nil: // all ports
			if byNumber {
				fit = append(fit, asked)
			}
		case byNumber && *p.Port == asked, !byNumber && (k.Port == "" || p.Name == k.Port):
			fit = append(fit, *p.Port)
		}
	}
	if len(fit) == 0 || k.Port == "" && len(fit) > 1 || fit[0] < 1 || fit[0] > 65535 {
		return 0, false
	}
	return uint16(fit[0]), true
}

// newPod returns what an endpoint is, nil if it has no address that could be dialled.
func newPod(e *endpoint, port uint16) *pod {
	if len(e.Addresses) == 0 {
		return nil
	}
	addr, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || addr.Zone() != "" {
		return nil
	}
	p := &pod{addr: addr.Unmap(), port: port}
	p.ready = e.Conditions.Ready == nil || *e.Conditions.Ready
	p.terminating = e.Conditions.Terminating != nil && *e.Conditions.Terminating
	p.id = addressID(p.addr, port)
	if ref := e.TargetRef; ref != nil && ref.Kind == "Pod" && podName.MatchString(ref.Name) {
		p.id, p.name, p.uid = nameID(ref.Name), ref.Name, ref.UID
	}
	return p
}

// better returns which of two endpoints of one ID counts. An endpoint may be in two slices for
// a moment, one of which is older, and has one for each kind of address. A Pod of a
// StatefulSet may have the name of one that has ended.
func (k *Kubernetes) better(a, b *pod) *pod {
	switch {
	case a == nil:
		return b
	case a.uid != b.uid:
		if a.terminating != b.terminating {
			return pick(b.terminating, a, b)
		}
		return pick(a.ready || !b.ready, a, b)
	case a.terminating != b.terminating: // it doesn't come back from that
		a.terminating, b.terminating = true, true
	}
	if a.addr.Is4() != b.addr.Is4() {
		return pick(a.addr.Is4() != k.IPv6, a, b)
	}
	return pick(a.ready || !b.ready, a, b)
}

func pick(first bool, a, b *pod) *pod {
	if first {
		return a
	}
	return b
}

// targets returns what becomes of the endpoints.
func (k *Kubernetes) targets(pods []*pod, graces map[string]time.Duration) []balancer.Target {
	none := !slices.ContainsFunc(pods, func(p *pod) bool { return p.ready && !p.terminating })
	targets := make([]balancer.Target, 0, len(pods))
	for _, p := range pods {
		t := balancer.Target{ID: p.id, URL: urlOf(k.Scheme, p.addr, p.port), Grace: k.Grace}
		switch {
		case p.terminating:
			t.Draining = true
			t.Within = cmp.Or(graces[p.uid], max(k.Grace, 0), defaultDrain)
			t.Within -= min(t.Within/10, 2*time.Second)
		case !p.ready && !none:
			t.Draining = true
		}
		targets = append(targets, t)
	}
	return targets
}
