package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	limpet "github.com/limpet-go/limpet/middleware"
)

// Handler returns a handler that Prometheus can scrape, for programs that have no registry
// of their own. It has the metrics of the gateway, of the Go runtime and of the process.
// What it tells isn't for everybody: mount it where only Prometheus and its operators get.
func Handler(gateway *limpet.Gateway, opts *Options) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(New(gateway, opts), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}
