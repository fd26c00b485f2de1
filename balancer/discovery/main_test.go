package discovery_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A watch is what a source tells, in words: the targets, or the error.
type watch chan string

// watchSource watches a source until the test ends.
func watchSource(t *testing.T, source balancer.Source) watch {
	t.Helper()
	if v, ok := source.(interface{ Validate() error }); ok {
		must(t, v.Validate())
	}
	told := make(watch)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		source.Watch(ctx, func(targets []balancer.Target, err error) {
			text := inWords(targets)
			if err != nil {
				text = "error: " + err.Error()
			}
			select {
			case told <- text:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return told
}

func inWords(targets []balancer.Target) string {
	var words []string
	for _, t := range targets {
		w := t.ID + "@" + strings.TrimPrefix(t.URL, "http://")
		if t.Weight > 1 {
			w += fmt.Sprintf(" weight %d", t.Weight)
		}
		if t.Group != "" {
			w += " group " + t.Group
		}
		if t.Draining {
			w += fmt.Sprintf(" draining %v", t.Within)
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

// await waits until the source tells what contains the text.
func (w watch) await(t *testing.T, text string) string {
	t.Helper()
	last := "nothing"
	late := time.After(20 * time.Second)
	for {
		select {
		case last = <-w:
			if strings.Contains(last, text) {
				return last
			}
		case <-late:
			t.Fatalf("the source has told %s\nwant %s", last, text)
		}
	}
}

// is waits until the source tells exactly these targets.
func (w watch) is(t *testing.T, text string) {
	t.Helper()
	for w.await(t, text) != text {
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ spec, want string }{
		{"dns://nodes.example.com:3000", "&{Name:nodes.example.com Port:3000 SRV:false Scheme: Network: Interval:0s Grace:0s Resolver:<nil>}"},
		{"dns://nodes:1?interval=5s&grace=-1s&scheme=https&network=ip4", "&{Name:nodes Port:1 SRV:false Scheme:https Network:ip4 Interval:5s Grace:-1s Resolver:<nil>}"},
		{"dns+srv://_http._tcp.example.com", "&{Name:_http._tcp.example.com Port:0 SRV:true Scheme: Network: Interval:0s Grace:0s Resolver:<nil>}"},
		{"file:/etc/nodes", "&{Path:/etc/nodes Grace:0s}"},
		{"file:nodes?grace=1m", "&{Path:nodes Grace:1m0s}"},
		{"file:///etc/nodes", "&{Path:/etc/nodes Grace:0s}"},
		{"k8s://ns/svc:http?server=http://127.0.0.1:8001", "&{Namespace:ns Service:svc Port:http Scheme: IPv6:false Grace:0s Server:http://127.0.0.1:8001 Account:}"},
		{"", "want dns://"},
		{"nodes:3000", "want dns://"},
		{"http://nodes:3000", "no such kind"},
		{"dns://nodes", "dns://host:port"},
		{"dns://nodes:http", "port of the backends as a number"},
		{"dns://:3000", "DNS name"},
		{"dns://nodes:3000/path", "as a number"},
		{"dns://nodes:3000?ttl=1", `no option "ttl"`},
		{"dns://nodes:3000?interval=5", "such as 30s"},
		{"dns://nodes:3000?interval=", "is empty"},
		{"dns://nodes:3000?scheme=ftp", "http or https"},
		{"dns://nodes:3000?network=tcp", "ip4, ip6"},
		{"dns+srv://_http._tcp.nodes:3000", "leave it out"},
		{"file:", "the path of a file"},
		{"file:/x?interval=1s", `no option "interval"`},
		{"k8s://svc:80", "k8s://namespace/service:port"},
		{"k8s://ns/a,b:80?server=http://h", "name of a Service"},
		{"k8s://N/svc:80?server=http://h", "name of a namespace"},
		{"k8s://ns/svc:0?server=http://h", "1 to 65535"},
		{"k8s://ns/svc:80?server=h", "https://host:port"},
		{"k8s:///svc:80?server=http://h", "own namespace"},
		{"k8s://ns/svc:80", "KUBERNETES_SERVICE_HOST"},
	} {
		t.Run(tt.spec, func(t *testing.T) {
			t.Parallel()
			source, err := parse(tt.spec)
			got := fmt.Sprintf("%+v", source)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) || strings.Count(got, "discovery:") > 1 {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
		})
	}
}
