package main

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// stepsPerHalf is in how many steps the distance to 100% halves.
	stepsPerHalf = 8
	// slotsMax makes the slots of a long cell longer.
	slotsMax   = 200
	slotMin    = 100 * time.Millisecond
	slotDigits = 2
)

// overTime is the course of a cell's latencies over its time. A message counts in the slot it was due
// in, so a stall shows where it began. Slots are made before the cell; nothing is computed while it
// runs.
type overTime struct {
	fromNs int64
	slotNs int64
	slots  []*hdrhistogram.Histogram
}

func newOverTime(fromNs, toNs int64) *overTime {
	slotNs := max(int64(slotMin), upDiv(toNs-fromNs, slotsMax))
	over := &overTime{fromNs, slotNs, make([]*hdrhistogram.Histogram, upDiv(toNs-fromNs, slotNs))}
	for at := range over.slots {
		over.slots[at] = hdrhistogram.New(1, int64(latencyMax), slotDigits)
	}
	return over
}

func upDiv(whole, part int64) int64 {
	return (whole + part - 1) / part
}

// note counts a message that was due within the cell's time.
func (over *overTime) note(dueNs, latencyNs int64) {
	if slot := (dueNs - over.fromNs) / over.slotNs; slot < int64(len(over.slots)) {
		record(over.slots[slot], latencyNs)
	}
}

// rows are second, p50, p99 and largest latency of each slot, in microseconds.
func (over *overTime) rows() [][4]float64 {
	rows := [][4]float64{}
	for at, slot := range over.slots {
		if slot.TotalCount() > 0 {
			second := math.Round(float64(int64(at)*over.slotNs)/1e6) / 1e3
			p50, p99 := slot.ValueAtQuantile(50), slot.ValueAtQuantile(99)
			rows = append(rows, [4]float64{second, us(p50), us(p99), us(slot.Max())})
		}
	}
	return rows
}

// curve is percentiles and microseconds, as far as there are messages to tell them apart. The
// library's own iteration has one step for each half of the distance.
func curve(latency *hdrhistogram.Histogram) [][2]float64 {
	points := [][2]float64{}
	count := float64(latency.TotalCount())
	for step := 0; count*math.Exp2(-float64(step)/stepsPerHalf) >= 1; step++ {
		percentile := 100 * (1 - math.Exp2(-float64(step)/stepsPerHalf))
		points = append(points, [2]float64{percentile, us(latency.ValueAtQuantile(percentile))})
	}
	return append(points, [2]float64{100, us(latency.Max())})
}
