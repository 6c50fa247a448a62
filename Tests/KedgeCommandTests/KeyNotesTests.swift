// That a host remembers the newest data key that it saw, believes nobody else's note, and works without any.
import Glibc
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeCommand

@Suite struct KeyNotesTests {
    private let directory: TemporaryDirectory
    private let warnings = Warnings()
    private let repository = RandomID(high: 7, low: 8)
    private let keys = (1...3).map { KeyVersion(sequence: $0, id: RandomID(high: 9, low: $0)) }

    private final class Warnings: Sendable {
        private let texts = Mutex<[String]>([])
        func add(_ text: String) { texts.withLock { $0.append(text) } }
        var all: [String] { texts.withLock { $0 } }
    }

    init() throws { directory = try TemporaryDirectory() }

    private func notes(_ directories: [String] = ["work"], user: UInt32 = geteuid()) -> KeyNotes {
        let warnings = warnings
        return KeyNotes(
            in: directories.map { directory($0) }, user: user, random: SystemRandomSource(),
            warn: { warnings.add($0) })
    }

    private var path: String { directory("work/newest-key-\(repository.hex)") }

    @Test("the newest key is remembered, an older one does not replace it, and repositories are kept apart")
    func remember() throws {
        #expect(notes().newestKey(of: repository) == nil)
        notes().remember(keys[1], of: repository)
        notes().remember(keys[0], of: repository)
        #expect(notes().newestKey(of: repository) == keys[1])
        notes().remember(keys[2], of: repository)
        #expect(notes().newestKey(of: repository) == keys[2])
        #expect(notes().newestKey(of: RandomID(high: 7, low: 9)) == nil)
        #expect(try FileStatus(at: RawPath(path)).mode == 0o600)
        #expect(try FileStatus(at: RawPath(directory("work"))).mode == 0o700)
        // Two clusters share a repository: what either has seen counts.
        notes(["other"]).remember(keys[0], of: repository)
        #expect(notes(["other", "work"]).newestKey(of: repository) == keys[2])
        #expect(notes().location(of: repository) == "\"\(path)\"")
        #expect(warnings.all.isEmpty)
    }

    @Test("a note that is gone costs the check and nothing else; a damaged one is reported and written anew")
    func lost() throws {
        notes().remember(keys[1], of: repository)
        try FileSystem.removeFile(at: RawPath(path))
        #expect(notes().newestKey(of: repository) == nil && warnings.all.isEmpty)
        for text in ["", "{", "{\"kedge\":\"newest-key\"}", String(repeating: "x", count: 9000)] {
            _ = try DurableFile.write(
                Array(text.utf8), to: RawPath(path), mode: 0o600, replacing: true, random: SystemRandomSource())
            #expect(notes().newestKey(of: repository) == nil)
        }
        #expect(warnings.all.count == 4)
        #expect(warnings.all.allSatisfy { $0.hasPrefix("could not read which data key was the newest: ") })
        notes().remember(keys[1], of: repository)
        #expect(notes().newestKey(of: repository) == keys[1])
    }

    @Test("a directory that others prepared is not believed, and stops nobody")
    func foreign() throws {
        notes().remember(keys[2], of: repository)
        #expect(notes(user: geteuid() + 1).newestKey(of: repository) == nil)
        #expect(chmod(directory("work"), 0o777) == 0)
        #expect(notes().newestKey(of: repository) == nil)
        notes().remember(keys[2], of: repository)
        // What is wrong with the directory is told in the same words for reading and for writing.
        #expect(warnings.all.count == 4 && Set(warnings.all).count == 2, "\(warnings.all)")
        #expect(
            warnings.all.allSatisfy {
                $0.hasPrefix("no note of the newest data key is read or kept: cannot use work directory \"")
            })
    }

    @Test("writing is refused with a key older than one that was seen, reading is not")
    func rule() throws {
        let memory = try MemoryRepository()
        var settings = memory.settings
        settings.keyMemory = notes()
        let repository = try Repository.open(memory.store, settings, for: .write)
        let id = repository.identity.id
        let first = try #require(notes().newestKey(of: id))
        #expect(first.sequence == 1)
        let newer = KeyVersion(sequence: 2, id: RandomID(high: 1, low: 1))
        notes().remember(newer, of: id)
        for use in [RepositoryUse.write, .expire] {
            let error = #expect(throws: KedgeError.self) { try Repository.open(memory.store, settings, for: use) }
            #expect(error?.code == .keyOutdated)
            #expect(error?.hint?.contains("newest-key-\(id.hex)") == true)
        }
        _ = try Repository.open(memory.store, settings, for: .read)
        #expect(notes().newestKey(of: id) == newer)
        #expect(warnings.all.isEmpty)
    }

    @Test("a data key is written with only after the slot that opened it was made durable")
    func durable() throws {
        let memory = try MemoryRepository()
        let slot = try #require(memory.store.names.first { $0.isBelow("key") })
        for remembers in [false, true] {
            memory.store.forgetDurability(of: slot)
            var settings = memory.settings
            if remembers { settings.keyMemory = notes() }
            _ = try Repository.open(memory.store, settings, for: .write)
            memory.store.losePower()
            #expect(memory.store.contents[slot] != nil)
        }
    }

    @Test("a newer data key that the secret does not open is told, and stops nobody")
    func closed() throws {
        let memory = try MemoryRepository()
        let newer = DataKey(sequence: 2, random: SystemRandomSource())
        try Repository.putKeySlot(
            KeySlot.wrap(
                newer, with: .newKeyFile(random: SystemRandomSource()), repositoryID: memory.identity.id,
                label: "other", createdAt: Timestamp(secondsSince1970: 0), random: SystemRandomSource()),
            in: memory.store)
        var settings = memory.settings
        let warnings = warnings
        settings.warn = { warnings.add($0) }
        let opened = try Repository.open(memory.store, settings, for: .write)
        #expect(try opened.keyRing.writingKey().sequence == 1)
        #expect(
            warnings.all == [
                "repository \"main\" has the newer data key 2, which the configured secret does not open (its slots: "
                    + "\"other\"); new objects are sealed with data key 1.  Run \"kedge key add\" where the newer "
                    + "one is open"
            ])
    }
}
