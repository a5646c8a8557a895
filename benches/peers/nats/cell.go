package main

import (
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	latencyMax    = 10 * time.Minute
	digits        = 3
	causesPrinted = 3
	never         = math.MaxInt64
)

// begun is where the process's monotonic clock counts from.
var begun = time.Now()

func nowNs() int64 {
	return int64(time.Since(begun))
}

// Cell is one load and what came of it, each message counted once by its index. What is due before
// measuredFrom is warm-up: counted as sent, received, lost or duplicated, and left out of the
// latencies.
type Cell struct {
	number   uint32
	lateness *hdrhistogram.Histogram

	distinct   atomic.Int64
	acks       atomic.Int64
	strikeNs   atomic.Int64
	firstAfter atomic.Int64

	receipts      sync.Mutex
	latency       *hdrhistogram.Histogram
	course        *overTime
	arrived       bits
	measuredFrom  int64
	measuredTo    int64
	next          int64
	duplicated    int64
	disordered    int64
	measured      int64
	inTime        int64
	lastReceiptNs int64
	silenceNs     int64
	closed        bool

	answers    sync.Mutex
	ackLatency *hdrhistogram.Histogram
	held       bits
	refusals   int64
}

func newCell(number uint32, measuredFrom, measuredTo int64) *Cell {
	cell := &Cell{
		number:       number,
		lateness:     newHistogram(),
		latency:      newHistogram(),
		course:       newOverTime(measuredFrom, measuredTo),
		ackLatency:   newHistogram(),
		measuredFrom: measuredFrom,
		measuredTo:   measuredTo,
	}
	cell.strikeNs.Store(never)
	cell.firstAfter.Store(never)
	return cell
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(latencyMax), digits)
}

func record(histogram *hdrhistogram.Histogram, ns int64) {
	// In its range, so it is never refused.
	_ = histogram.RecordValue(max(1, min(ns, int64(latencyMax))))
}

func (cell *Cell) received(index, dueNs int64) {
	cell.receipts.Lock()
	defer cell.receipts.Unlock()
	now := nowNs()
	if cell.closed {
		return
	}
	if !cell.arrived.set(index) {
		cell.duplicated++
		return
	}
	if index < cell.next {
		cell.disordered++
	} else {
		cell.next = index + 1
	}
	if strike := cell.strikeNs.Load(); now >= strike {
		cell.noteSilence(now)
		if dueNs > strike && cell.firstAfter.Load() == never {
			cell.firstAfter.Store(now)
		}
	}
	cell.lastReceiptNs = now
	if now >= cell.measuredFrom && now < cell.measuredTo {
		cell.inTime++
	}
	if dueNs >= cell.measuredFrom {
		record(cell.latency, now-dueNs)
		cell.course.note(dueNs, now-dueNs)
		cell.measured++
	}
	cell.distinct.Add(1)
}

// silentUntilNow counts the silence that lasts still as far as it has come: nothing may ever end it.
func (cell *Cell) silentUntilNow() {
	cell.receipts.Lock()
	defer cell.receipts.Unlock()
	cell.noteSilence(nowNs())
}

func (cell *Cell) noteSilence(now int64) {
	// Where nothing came yet, since the load began.
	cell.silenceNs = max(cell.silenceNs, now-max(cell.lastReceiptNs, cell.measuredFrom))
}

func (cell *Cell) acknowledged(index, dueNs int64) {
	cell.answers.Lock()
	defer cell.answers.Unlock()
	now := nowNs()
	if !cell.held.set(index) {
		return
	}
	if dueNs >= cell.measuredFrom {
		record(cell.ackLatency, now-dueNs)
	}
	cell.acks.Add(1)
}

func (cell *Cell) refused(why error) {
	cell.answers.Lock()
	defer cell.answers.Unlock()
	if cell.refusals < causesPrinted {
		fmt.Fprintln(os.Stderr, "refused:", why)
	}
	cell.refusals++
}

// close ends the counting, so that everything may be read.
func (cell *Cell) close() {
	cell.receipts.Lock()
	defer cell.receipts.Unlock()
	cell.closed = true
}

// counts is what is said of the messages in every kind of cell.
func (cell *Cell) counts(sent int64) fields {
	cell.answers.Lock()
	defer cell.answers.Unlock()
	distinct := cell.distinct.Load()
	return fields{
		"sent": sent, "received": distinct, "lost": sent - distinct,
		"duplicated": cell.duplicated, "disordered": cell.disordered,
		"acknowledged": cell.acks.Load(), "acknowledged_lost": cell.held.without(&cell.arrived),
		"refused": cell.refusals,
	}
}

// latencies is what is said of those that were measured.
func (cell *Cell) latencies() fields {
	cell.receipts.Lock()
	defer cell.receipts.Unlock()
	found := percentiles("", cell.latency)
	found["percentiles"], found["over_time"] = curve(cell.latency), cell.course.rows()
	return found
}

func (cell *Cell) acknowledgements() fields {
	cell.answers.Lock()
	defer cell.answers.Unlock()
	return percentiles("ack_", cell.ackLatency)
}

func percentiles(prefix string, histogram *hdrhistogram.Histogram) fields {
	at := func(percent float64) float64 { return us(histogram.ValueAtQuantile(percent)) }
	return fields{
		prefix + "p50_us": at(50), prefix + "p90_us": at(90), prefix + "p99_us": at(99),
		prefix + "p999_us": at(99.9), prefix + "p9999_us": at(99.99),
		prefix + "max_us": us(histogram.Max()),
	}
}

func us(ns int64) float64 {
	return math.Round(float64(ns)/100) / 10
}

// bits is a set of small numbers.
type bits struct {
	words []uint64
}

// set adds a number; whether it was not there yet.
func (set *bits) set(number int64) bool {
	word, bit := int(number/64), uint64(1)<<(number%64)
	for word >= len(set.words) {
		set.words = append(set.words, make([]uint64, len(set.words)+1024)...)
	}
	if set.words[word]&bit != 0 {
		return false
	}
	set.words[word] |= bit
	return true
}

// without counts the numbers that the other set lacks.
func (set *bits) without(other *bits) (count int64) {
	for word, mine := range set.words {
		if word < len(other.words) {
			mine &^= other.words[word]
		}
		for ; mine != 0; mine &= mine - 1 {
			count++
		}
	}
	return count
}
