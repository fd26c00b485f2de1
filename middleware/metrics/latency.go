package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	limpet "github.com/limpet-go/limpet/middleware"
)

// Classic buckets are for Prometheus servers that don't ingest native histograms.
var (
	requestDuration = latency("limpet_request_duration_seconds",
		"How long backends' answers took, from the request to the last byte. Long polls, streams and tunnels are left out.")
	requestFirstByte = latency("limpet_request_first_byte_seconds",
		"How long it took until the header of backends' answers was there. Long polls, streams and tunnels are left out.")
	tunnelDuration = prometheus.HistogramOpts{
		Name: "limpet_tunnel_duration_seconds", Help: "How old tunnels became. A peak at one age is a time limit of a proxy in front.",
		Buckets: []float64{1, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600},
	}
)

func latency(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help,
		Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// long reports whether the time of a backend's answer says nothing about how fast the
// backend is.
func (c *Collector) long(rec *limpet.Record) bool {
	return rec.Long() || c.opts.Long != nil && c.opts.Long(rec)
}
