package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The same generator as peers.Load of the Java drivers, and the same output: message i is due at
// start + i / rate, and its latency counts from then until the subscriber has it.

const (
	headLength     = 20
	settleRate     = 2_000
	leadNs         = 20_000_000
	behindSeconds  = 2
	heldPart       = 0.95
	drainNs        = 15_000_000_000
	ackDrainNs     = 1_000_000_000
	failoverRate   = 1_000
	beforeStrikeNs = 3_000_000_000
	afterBackNs    = 5_000_000_000
	recoveryMaxNs  = 60_000_000_000
	pause          = time.Millisecond
)

type fields map[string]any

// Message is one message on its way: index (from 0 within its cell), when it is due, number of the
// cell, filling; little-endian.
type Message struct {
	body  []byte
	index int64
	dueNs int64
	cell  *Cell
}

// id is what the peer may recognise a repetition by.
func (message *Message) id() string {
	return fmt.Sprintf("%d-%d", message.cell.number, message.index)
}

func (message *Message) acknowledged() {
	message.cell.acknowledged(message.index, message.dueNs)
}

func (message *Message) refused(why error) {
	message.cell.refused(why)
}

// Driver is what a peer's own client does for the generator.
type Driver interface {
	// send sends one message without waiting for its acknowledgement.
	send(message *Message) error
	// leader is the node that leads, by the name of its pid file.
	leader() (string, error)
	// versions are those of server and client.
	versions() string
	// settings are those of the client, and of the stream, that decide what is measured.
	settings() string
	// aheadMax is how many messages may be on their way when as many as possible are sent.
	aheadMax() int64
}

// Load is the generator.
type Load struct {
	driver   Driver
	rates    string
	seconds  float64
	warmup   float64
	settle   float64
	idle     string
	hgrm     string
	pids     string
	failover bool
	filling  []byte
	cell     atomic.Pointer[Cell]
	cells    uint32

	drainNs       int64
	recoveryMaxNs int64
}

func newLoad() *Load {
	return &Load{drainNs: drainNs, recoveryMaxNs: recoveryMaxNs}
}

// options names the generator's options; parse is the caller's.
func (load *Load) options() (size *int) {
	flag.StringVar(&load.rates, "rates", "2000", "messages per second, one after the other, or max")
	flag.Float64Var(&load.seconds, "seconds", 5, "seconds measured")
	flag.Float64Var(&load.warmup, "warmup", 1, "seconds of the same load before them")
	flag.Float64Var(&load.settle, "settle", 0, "seconds of load before everything, unmeasured")
	flag.StringVar(&load.idle, "idle", "yield", "until the next message is due: yield or sleep")
	flag.StringVar(&load.hgrm, "hgrm", "", "write distributions to files whose names begin so")
	flag.StringVar(&load.pids, "pids", "", "directory of the nodes' pid files")
	// With a value, as the Java drivers take it: a plain flag would end the options there.
	flag.Func("failover", "true: kill the leader", func(text string) (err error) {
		load.failover, err = strconv.ParseBool(text)
		return err
	})
	return flag.Int("size", 256, "bytes of a message")
}

func (load *Load) run(size int) error {
	if size < headLength {
		return fmt.Errorf("-size takes %d or more", headLength)
	}
	load.filling = make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(load.filling)
	// It yields in a loop: without a thread of its own it would keep the scheduler's.
	runtime.LockOSThread()
	if load.settle > 0 {
		if _, _, err := load.steady(settleRate, 0, load.settle); err != nil {
			return err
		}
	}
	if load.failover {
		result, err := load.strike()
		if err != nil {
			return err
		}
		printLine(result)
		return nil
	}
	held := true
	for _, text := range strings.Split(load.rates, ",") {
		if text == "max" {
			result, err := load.most()
			if err != nil {
				return err
			}
			printLine(result)
			continue
		}
		rate, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return err
		}
		// A higher rate would not be held either, and takes the time to drain again.
		if !held {
			continue
		}
		var result fields
		if result, held, err = load.steady(rate, load.warmup, load.seconds); err != nil {
			return err
		}
		if err := load.writeHistogram(load.cell.Load(), text); err != nil {
			return err
		}
		printLine(result)
	}
	return nil
}

func printLine(line fields) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err) // Only numbers and words are put in.
	}
	fmt.Println(string(text))
}

// received notes what the subscriber was given.
func (load *Load) received(body []byte) {
	if len(body) < headLength {
		return
	}
	cell := load.cell.Load()
	if cell != nil && cell.number == binary.LittleEndian.Uint32(body[16:]) {
		index := binary.LittleEndian.Uint64(body)
		cell.received(int64(index), int64(binary.LittleEndian.Uint64(body[8:])))
	}
}

func (load *Load) begin(measuredFrom, measuredTo int64) *Cell {
	load.cells++
	cell := newCell(load.cells, measuredFrom, measuredTo)
	load.cell.Store(cell)
	return cell
}

func (load *Load) message(index, dueNs int64, cell *Cell) *Message {
	body := make([]byte, len(load.filling))
	copy(body, load.filling)
	binary.LittleEndian.PutUint64(body, uint64(index))
	binary.LittleEndian.PutUint64(body[8:], uint64(dueNs))
	binary.LittleEndian.PutUint32(body[16:], cell.number)
	return &Message{body: body, index: index, dueNs: dueNs, cell: cell}
}

func (load *Load) steady(rate, warmup, seconds float64) (fields, bool, error) {
	start := nowNs() + leadNs
	due := func(index int64) int64 { return start + int64(float64(index)*1e9/rate) }
	measuredFrom := int64(rate * warmup)
	total := measuredFrom + max(1, int64(rate*seconds))
	fromNs, toNs := due(measuredFrom), due(total)
	cell := load.begin(fromNs, toNs)
	var sent int64
	saturated := false
	for sent < total && !saturated {
		dueNs := due(sent)
		load.await(dueNs)
		late := nowNs() - dueNs
		if sent >= measuredFrom {
			record(cell.lateness, late)
		}
		if err := load.driver.send(load.message(sent, dueNs, cell)); err != nil {
			return nil, false, err
		}
		sent++
		behind := float64(sent - cell.distinct.Load())
		saturated = behind > rate*behindSeconds || late > behindSeconds*1e9
	}
	load.drain(cell, sent)
	took := float64(max(toNs, cell.lastReceiptNs)-fromNs) / 1e9
	achieved := float64(cell.measured) / took
	if saturated {
		achieved = float64(cell.distinct.Load()) / (float64(cell.lastReceiptNs-start) / 1e9)
	}
	held := !saturated && achieved >= heldPart*rate
	result := fields{
		"what": "latency", "rate": rate, "held": held, "offered": total - measuredFrom,
		"achieved": achieved, "lateness_p99_us": us(cell.lateness.ValueAtQuantile(99)),
	}
	maps.Copy(result, cell.latencies())
	maps.Copy(result, cell.acknowledgements())
	load.complete(result, cell, sent)
	return result, held, nil
}

func (load *Load) most() (fields, error) {
	start := nowNs()
	fromNs := start + int64(load.warmup*1e9)
	toNs := fromNs + int64(load.seconds*1e9)
	cell := load.begin(fromNs, toNs)
	var sent int64
	for now := start; now < toNs; now = nowNs() {
		if sent-cell.distinct.Load() >= load.driver.aheadMax() {
			load.nap(pause)
			continue
		}
		if err := load.driver.send(load.message(sent, now, cell)); err != nil {
			return nil, err
		}
		sent++
	}
	load.drain(cell, sent)
	perSecond := float64(cell.inTime) / load.seconds
	result := fields{
		"what": "throughput", "rate": "max", "msgs_per_s": perSecond,
		"mb_per_s": perSecond * float64(len(load.filling)) / 1e6,
	}
	maps.Copy(result, cell.latencies())
	load.complete(result, cell, sent)
	return result, load.writeHistogram(cell, "max")
}

func (load *Load) strike() (fields, error) {
	leader, err := load.driver.leader()
	if err != nil {
		return nil, err
	}
	pid, err := os.ReadFile(filepath.Join(load.pids, leader+".pid"))
	if err != nil {
		return nil, err
	}
	process, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		return nil, err
	}
	start := nowNs() + leadNs
	strikeAt := start + beforeStrikeNs
	end := strikeAt + load.recoveryMaxNs
	cell := load.begin(start, end)
	var sent int64
	for {
		dueNs := start + sent*1e9/failoverRate
		if back := cell.firstAfter.Load(); back != never {
			end = min(end, back+afterBackNs)
		}
		if dueNs > end {
			break
		}
		if cell.strikeNs.Load() == never && dueNs >= strikeAt {
			cell.strikeNs.Store(nowNs())
			if err := syscall.Kill(process, syscall.SIGKILL); err != nil {
				return nil, errors.Join(errors.New("the leader can't be killed"), err)
			}
		}
		load.await(dueNs)
		if err := load.driver.send(load.message(sent, dueNs, cell)); err != nil {
			return nil, err
		}
		sent++
	}
	load.await(end)
	cell.silentUntilNow()
	load.drain(cell, sent)
	back := cell.firstAfter.Load()
	firstAfter := -1.0
	if back != never {
		firstAfter = float64(back-cell.strikeNs.Load()) / 1e6
	}
	result := fields{
		"what": "failover", "how": "kill", "rate": failoverRate, "struck": leader,
		"recovered": back != never, "outage_ms": float64(cell.silenceNs) / 1e6,
		"first_after_ms": firstAfter,
	}
	load.complete(result, cell, sent)
	return result, nil
}

// complete adds what is said of every kind of cell.
func (load *Load) complete(result fields, cell *Cell, sent int64) {
	maps.Copy(result, cell.counts(sent))
	maps.Copy(result, fields{
		"seconds": load.seconds, "size": len(load.filling), "publishers": 1, "subscribers": 1,
		"idle": load.idle, "versions": load.driver.versions(),
		"client_settings": load.driver.settings(), "runtime": runtime.Version(),
	})
}

func (load *Load) await(dueNs int64) {
	for left := dueNs - nowNs(); left > 0; left = dueNs - nowNs() {
		if load.idle == "sleep" {
			load.nap(min(time.Duration(left), pause))
		} else {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
}

// nap sleeps in the kernel: Go's own timers are a millisecond late.
func (load *Load) nap(time time.Duration) {
	left := syscall.NsecToTimespec(int64(time))
	_ = syscall.Nanosleep(&left, nil)
}

// drain waits for what is on its way; what has not come then counts as lost.
func (load *Load) drain(cell *Cell, sent int64) {
	for end := nowNs() + load.drainNs; cell.distinct.Load() < sent && nowNs() < end; {
		load.nap(pause)
	}
	for end := nowNs() + ackDrainNs; cell.acks.Load() < sent && nowNs() < end; {
		load.nap(pause)
	}
	cell.close()
}

func (load *Load) writeHistogram(cell *Cell, rate string) error {
	if load.hgrm == "" {
		return nil
	}
	file, err := os.Create(load.hgrm + rate + ".hgrm")
	if err != nil {
		return err
	}
	_, err = cell.latency.PercentilesPrint(file, 5, 1e3)
	return errors.Join(err, file.Close())
}
