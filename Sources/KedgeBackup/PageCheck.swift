// Data checksums, checked while a file is copied.
//
// A page that fails may just be being written, so it is read again after a pause (lesson 35). If it still fails, its
// LSN decides: replay writes every page anew that was changed between the backup's start and its stop (full_page_writes
// is forced meanwhile), so only a page whose LSN lies outside of that is damaged. Where the stop lies is known only at
// the end: until then a page with a newer LSN is a suspect.

package import KedgeCatalog
package import KedgeCore
import KedgePostgres
import Synchronization

/// The pages of one region that fail, and reading them again. Used by one thread at a time.
package struct PageCheck: Sendable {
    package let blockSize: Int
    private let time: any TimeSource
    private let findings: PageFindings

    /// Pauses before the page is read again. The kernel copies a page in microseconds; the rest is for a busy machine.
    private static let pausesNanoseconds: [UInt64] = [10_000_000, 20_000_000, 40_000_000, 80_000_000]

    package init(blockSize: UInt32, findings: PageFindings, time: any TimeSource) {
        self.blockSize = Int(blockSize)
        self.findings = findings
        self.time = time
    }

    /// What became of a region.
    package struct Result: Hashable, Sendable {
        /// Every page of it was looked at, and is valid.
        package var isValid = true
        /// Reading again has put other bytes into it.
        package var isReplaced = false
    }

    /// Checks the whole pages of `region`, which was read from `file` at `offset`, and puts into it what reading again
    /// gave. `firstBlock` is the number of the file's first block within its fork.
    ///
    /// With `verifiedBefore`, an earlier backup has checked just these bytes and found no page damaged, and began at
    /// that LSN: what it may have passed over because replay would write it anew has a newer LSN, and only such pages
    /// are checked.
    package func check(
        _ region: UnsafeMutableRawBufferPointer, of file: any OpenSourceFile, path: ManifestPath, at offset: UInt64,
        firstBlock: UInt32, verifiedBefore: LSN? = nil
    ) throws(KedgeError) -> Result {
        let firstInFile = UInt32(truncatingIfNeeded: offset / UInt64(blockSize))
        func page(_ index: Int) -> DataPage {
            DataPage(UnsafeRawBufferPointer(rebasing: region[index * blockSize..<(index + 1) * blockSize]))
        }
        func fails(_ index: Int) -> Bool {
            // Numbers beyond 2^32 do not occur: the walk takes such a file for no relation's.
            page(index).verdict(block: firstBlock &+ firstInFile &+ UInt32(index)) != .valid
        }
        var result = Result(isValid: verifiedBefore == nil)
        var failing = (0..<region.count / blockSize).filter { index in
            if let verifiedBefore, page(index).lsn <= verifiedBefore { return false }
            return fails(index)
        }
        if !failing.isEmpty { result = Result(isValid: false, isReplaced: true) }
        // With a file full of damage, pausing for each of its regions would take longer than anybody waits.
        let pauses = findings.isOverflowing ? PageCheck.pausesNanoseconds.prefix(1) : PageCheck.pausesNanoseconds[...]
        for pause in pauses where !failing.isEmpty {
            time.sleep(nanoseconds: pause)
            var remaining: [Int] = []
            for index in failing {
                let buffer = UnsafeMutableRawBufferPointer(
                    rebasing: region[index * blockSize..<(index + 1) * blockSize])
                let count = try file.read(into: buffer, at: offset + UInt64(index * blockSize))
                // Where the file was truncated meanwhile, replay does the same, whatever we hold.
                if count == blockSize && fails(index) { remaining.append(index) }
            }
            failing = remaining
        }
        for index in failing {
            findings.add(path: path, block: firstInFile &+ UInt32(index), lsn: page(index).lsn)
        }
        return result
    }
}

/// The pages of all files that fail their checksums. Memory is bounded whatever the damage.
package final class PageFindings: Sendable {
    private struct State {
        var damaged: [CommitRecord.DamagedPage] = []
        var damagedCount: UInt64 = 0
        var suspects: [(page: CommitRecord.DamagedPage, lsn: LSN)] = []
    }

    private let startLSN: LSN
    private let state = Mutex(State())
    private static let limit = CommitRecord.BackupHealth.maximumListedPages

    package init(startLSN: LSN) { self.startLSN = startLSN }

    /// Forgets what was found: the copy starts over.
    package func removeAll() { state.withLock { $0 = State() } }

    /// Whether more was found than is listed.
    var isOverflowing: Bool { state.withLock { $0.damagedCount > UInt64(PageFindings.limit) } }

    /// Adds a page that fails. `block` counts from the start of the file.
    func add(path: ManifestPath, block: UInt32, lsn: LSN) {
        let page = CommitRecord.DamagedPage(path: path, block: block)
        state.withLock { state in
            if lsn > startLSN && state.suspects.count < PageFindings.limit {
                state.suspects.append((page, lsn))
            } else {
                // So many pages are not being written at once: what does not fit the list of suspects is damage.
                PageFindings.count(page, in: &state)
            }
        }
    }

    private static func count(_ page: CommitRecord.DamagedPage, in state: inout State) {
        state.damagedCount += 1
        if state.damaged.count < limit { state.damaged.append(page) }
    }

    /// The pages that replay up to `stopLSN` does not make good: the first of them, sorted, and how many there are.
    package func verdict(stopLSN: LSN) -> (pages: [CommitRecord.DamagedPage], count: UInt64) {
        state.withLock { state in
            let late = state.suspects.filter { $0.lsn > stopLSN }.map(\.page)
            let pages = (state.damaged + late).sorted { ($0.path, $0.block) < ($1.path, $1.block) }
            return (Array(pages.prefix(PageFindings.limit)), state.damagedCount + UInt64(late.count))
        }
    }
}
