// Which transactions end in a segment, exactly and in little space.
//
// Transaction ids are 32 bits wide and wrap around: "before" and "after" make sense only within two thousand million of
// each other (src/backend/access/transam/transam.c, TransactionIdPrecedes). The ids that end in one segment lie close
// together and nearly fill their range, so they are kept as runs of consecutive ids.
import KedgeCore

/// A set of transaction ids.
package struct TransactionIDSet: Hashable, Sendable {
    /// `length` consecutive ids from `first` on, modulo 2^32.
    package struct Run: Hashable, Sendable {
        package let first: UInt32
        package let length: UInt32

        package init(first: UInt32, length: UInt32) {
            self.first = first
            self.length = length
        }
    }

    /// How many different ids are in the set; where it is not exact, how many were counted.
    package let count: Int
    /// The oldest and the newest id.
    package let oldest: UInt32
    package let newest: UInt32
    /// Oldest first. Nil where there would be more than `maximumRuns`: then only the range is known.
    package let runs: [Run]?

    /// A run costs at least two bytes in the encoded form, so this bounds a record's size.
    package static let maximumRuns = 4096
    /// Bytes of the encoded runs at most.
    package static let maximumEncodedBytes = 16 << 10

    package init(count: Int, oldest: UInt32, newest: UInt32, runs: [Run]?) {
        self.count = count
        self.oldest = oldest
        self.newest = newest
        self.runs = runs
    }

    /// Whether transaction `xid` ends here. Nil where that is not known: the set is not exact, and `xid` lies in its
    /// range.
    package func contains(_ xid: UInt32) -> Bool? {
        guard xid &- oldest <= newest &- oldest else { return false }
        guard let runs else { return nil }
        // The first run that begins after xid; the one before it is the only one that can hold it.
        var low = 0
        var high = runs.count
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].first &- oldest <= xid &- oldest { low = middle + 1 } else { high = middle }
        }
        return low > 0 && xid &- runs[low - 1].first < runs[low - 1].length
    }

    /// The runs as pairs of varints: ids skipped since the end of the run before (none for the first), length less one.
    var encodedRuns: [UInt8]? {
        guard let runs else { return nil }
        var bytes: [UInt8] = []
        var end = oldest
        for run in runs {
            bytes.append(varint: run.first &- end)
            bytes.append(varint: run.length - 1)
            end = run.first &+ run.length
        }
        return bytes
    }

    /// The inverse of `encodedRuns`. Throws `damaged` unless the runs are in order and end with `newest`.
    static func decode(
        runs bytes: [UInt8], oldest: UInt32, newest: UInt32, what: String
    ) throws(KedgeError) -> TransactionIDSet {
        let (runs, count) = try bytes.withBytes { (buffer) throws(KedgeError) in
            var reader = BinaryReader(buffer, what: what)
            var runs: [Run] = []
            var count: UInt64 = 0
            // The distance from `oldest`, which is what must grow and not exceed the range.
            var end: UInt64 = 0
            let range = UInt64(newest &- oldest) + 1
            while reader.remaining > 0 {
                let skipped = try reader.varint()
                let length = try reader.varint()
                guard skipped < range, length < range, length < UInt32.max, end + skipped + length < range,
                    (skipped > 0) != runs.isEmpty, runs.count < maximumRuns
                else { throw reader.malformed("the runs of transaction ids are not in order") }
                runs.append(
                    Run(first: oldest &+ UInt32(end + skipped), length: UInt32(truncatingIfNeeded: length + 1)))
                end += skipped + length + 1
                count += length + 1
            }
            guard end == range else { throw reader.malformed("the runs of transaction ids end too early") }
            return (runs, count)
        }
        return TransactionIDSet(count: Int(count), oldest: oldest, newest: newest, runs: runs)
    }
}

/// Collects ids in any order, in bounded memory.
package struct TransactionIDCollector {
    private let batch: Int
    /// Sorted and joined whenever it is full.
    private var pending: [UInt32] = []
    private var runs: [TransactionIDSet.Run] = []
    private var isExact = true
    /// Ids are ordered by their distance from here, half the circle before the first one seen.
    private var origin: UInt32?
    private var oldest: UInt32 = .max
    private var newest: UInt32 = 0
    /// Ids given, counting twice what came twice; serves where the set is not exact.
    private var given = 0

    /// `batch` ids are kept unsorted at most.
    package init(batch: Int = 1 << 16) { self.batch = batch }

    @inline(__always)
    package mutating func insert(_ xid: UInt32) {
        let origin = self.origin ?? xid &- 0x8000_0000
        self.origin = origin
        let distance = xid &- origin
        oldest = min(oldest, distance)
        newest = max(newest, distance)
        given += 1
        guard isExact else { return }
        pending.append(distance)
        if pending.count >= batch { merge() }
    }

    /// The set of all ids so far. Nil where there are none.
    package mutating func finish() -> TransactionIDSet? {
        guard let origin else { return nil }
        merge()
        let set = TransactionIDSet(
            count: isExact ? runs.reduce(0) { $0 + Int($1.length) } : given, oldest: oldest &+ origin,
            newest: newest &+ origin,
            runs: isExact ? runs.map { .init(first: $0.first &+ origin, length: $0.length) } : nil)
        guard let encoded = set.encodedRuns, encoded.count > TransactionIDSet.maximumEncodedBytes else { return set }
        return TransactionIDSet(count: set.count, oldest: set.oldest, newest: set.newest, runs: nil)
    }

    /// Joins the pending ids into the runs, which hold distances from the origin here.
    private mutating func merge() {
        guard isExact, !pending.isEmpty else { return }
        pending.sort()
        var joined: [TransactionIDSet.Run] = []
        joined.reserveCapacity(runs.count)
        var old = runs[...]
        var new = pending[...]
        func append(_ first: UInt64, _ length: UInt64) {
            if let last = joined.last, first <= UInt64(last.first) + UInt64(last.length) {
                let end = max(UInt64(last.first) + UInt64(last.length), first + length)
                joined[joined.count - 1] = .init(first: last.first, length: UInt32(end - UInt64(last.first)))
            } else {
                joined.append(.init(first: UInt32(first), length: UInt32(length)))
            }
        }
        while let distance = new.first {
            while let run = old.first, run.first <= distance {
                append(UInt64(run.first), UInt64(run.length))
                old = old.dropFirst()
            }
            append(UInt64(distance), 1)
            new = new.dropFirst()
        }
        for run in old { append(UInt64(run.first), UInt64(run.length)) }
        runs = joined
        pending.removeAll(keepingCapacity: true)
        if runs.count > TransactionIDSet.maximumRuns {
            isExact = false
            runs = []
        }
    }
}
