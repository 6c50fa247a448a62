// That `restore --delta` removes no WAL that only the data directory has unless somebody says so, keeps it where it is
// when asked to, and does not refuse over what is nowhere missed. The repository has segments 5 to 7, each with a
// commit, and a backup that starts in 5.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct UnarchivedWALRestoreTests {
    /// A restored data directory with files in its pg_wal.
    final class World {
        let place: DeltaPlace
        let whole: [String: String]

        init() throws {
            place = try DeltaPlace(large: false)
            _ = try place.restore(delta: false)
            whole = try place.look()
        }

        func write(_ name: String, _ bytes: [UInt8], ready: Bool = false) throws {
            try place.write(place.target + "/pg_wal/" + name, bytes)
            if ready { try place.write(place.target + "/pg_wal/archive_status/\(name).ready", []) }
        }

        /// Removes all WAL by hand.
        func clear() throws {
            try place.run(
                "sh", "-c", "rm -f \(place.target)/pg_wal/0* \(place.target)/pg_wal/archive_status/*")
        }

        /// The refusal of a restore without a choice, which must change nothing; nil if it would go on.
        func refusal(_ request: RestoreRequest = RestoreRequest()) throws -> KedgeError? {
            let before = try place.look()
            do throws(KedgeError) {
                _ = try place.restore(delta: true, dryRun: true, request: request, unarchived: nil)
            } catch {
                #expect(try place.look() == before)
                let again = #expect(throws: KedgeError.self) {
                    _ = try place.restore(delta: true, request: request, unarchived: nil)
                }
                #expect(again?.code == error.code)
                #expect(try place.look() == before)
                return error
            }
            return nil
        }
    }

    /// A segment with a commit as the last record, and the LSN behind that.
    static func segment(
        _ number: UInt64, timeline: UInt32 = 1, xid: UInt32 = 900, switched: Bool = false
    ) -> (name: String, bytes: [UInt8], end: LSN) {
        var builder = WALBuilder(system: SystemIdentifier(7), timeline: timeline, firstSegment: number)
        builder.append(manager: 10, info: 0x20, xid: xid, data: [1, 2, 3])
        builder.appendEnd(commit: true, xid: xid, time: Timestamp(secondsSince1970: 1_795_000_100))
        let end = builder.lsn
        if switched { builder.appendSwitch() }
        let (segment, bytes) = builder.segments[0]
        return (segment.fileName(segmentSize: 1 << 20), bytes, switched ? LSN((number + 1) << 20) : end)
    }

    /// What a clean shutdown leaves.
    static func shutdown(_ number: UInt64) -> (name: String, bytes: [UInt8]) {
        var builder = WALBuilder(system: SystemIdentifier(7), firstSegment: number)
        builder.appendCheckpoint(redo: builder.lsn, shutdown: true, time: Timestamp(secondsSince1970: 1_795_000_100))
        return (builder.segments[0].segment.fileName(segmentSize: 1 << 20), builder.segments[0].bytes)
    }

    /// A segment as `PaperBackup.archive` stores it.
    static func archived(_ number: UInt64) -> [UInt8] {
        var builder = WALBuilder(system: SystemIdentifier(7), firstSegment: number)
        builder.appendEnd(commit: true, xid: UInt32(700 + number), time: MemoryRepository.commitTime(number))
        builder.appendSwitch()
        return builder.segments[0].bytes
    }

    @Test("commits that no repository has are refused, with how many, first, last and how far; nothing is changed")
    func refused() throws {
        let world = try World()
        let (first, last) = (Self.segment(8, switched: true), Self.segment(9))
        try world.write(first.name, first.bytes, ready: true)
        try world.write(last.name, last.bytes)
        #expect(
            try world.refusal()?.description == """
                cannot restore into directory "\(world.place.target)": it holds WAL that no repository has
                code: unarchived-wal
                detail: 2 WAL files, 000000010000000000000008 to 000000010000000000000009, up to LSN \(last.end): the \
                last commits may be there alone.
                hint: Add "--unarchived-wal keep": the files stay in pg_wal, and recovery goes on in them where the \
                archive ends.  Only if what is in them may be lost: "--unarchived-wal discard".
                """)
    }

    @Test("keep leaves exactly these files and their marks, tells recovery to go to the end, and a repeat knows them")
    func kept() throws {
        let world = try World()
        let place = world.place
        let (first, last) = (Self.segment(8, switched: true), Self.segment(9))
        try world.write(first.name, first.bytes, ready: true)
        try world.write(last.name, last.bytes)
        let expected = try place.look()
        try world.write("000000010000000000000007", Self.archived(7), ready: true)
        try world.write("00000001000000000000000A", Self.archived(6))
        try world.write("000000010000000000000005.00000028.backup", [1])
        for dryRun in [true, false, false] {
            let outcome = try place.restore(
                delta: true, dryRun: dryRun, request: RestoreRequest(), unarchived: .keep)
            let unarchived = try #require(outcome.delta?.unarchived)
            #expect(unarchived.wal.files.map(\.name.text) == [first.name, last.name])
            #expect(unarchived.isReplayed && unarchived.choice == .keep)
            #expect(outcome.settings.target == .none)
        }
        let now = try place.look().filter { !$0.key.hasSuffix("postgresql.auto.conf") }
        let manifest = place.target + "/backup_manifest"
        #expect(
            now.filter { $0.key != manifest }
                == expected.filter {
                    !$0.key.hasSuffix("postgresql.auto.conf") && $0.key != manifest
                })
        // To an earlier target it stays as well, and has no effect.
        let earlier = try place.restore(delta: true, unarchived: .keep)
        #expect(earlier.delta?.unarchived?.isReplayed == false)
        #expect(earlier.settings.target == .immediate)
        #expect(try place.look() == expected)
        // Without the first there is a hole: recovery ends before the second.
        try place.run("rm", place.target + "/pg_wal/" + first.name)
        let hole = try place.restore(delta: true, request: RestoreRequest(), unarchived: .keep)
        #expect(hole.delta?.unarchived?.isReplayed == false)
        #expect(hole.settings.target != .none)
        let discarded = try place.restore(delta: true, unarchived: .discard)
        #expect(discarded.delta?.unarchived?.wal.files.map(\.name.text) == [last.name])
        #expect(try place.look() == world.whole)
    }

    @Test("what is archived with the same content, recycled, bookkeeping or in a backup already is not missed")
    func notMissed() throws {
        let world = try World()
        try world.write("000000010000000000000007", Self.archived(7), ready: true)
        // Renamed ahead: the pages are those of an older segment.
        try world.write("000000010000000000000009", Self.archived(5))
        try world.write("00000001000000000000000A", [UInt8](repeating: 0, count: 1 << 20))
        try world.write("000000010000000000000008", Self.shutdown(8).bytes)
        // From before archiving began: all that it did is in the backup, and the server's WAL goes on to that.
        let old = Self.segment(4)
        try world.write(old.name, old.bytes)
        try world.write("000000010000000000000005", Self.archived(5))
        var foreign = WALBuilder(system: SystemIdentifier(8), firstSegment: 11)
        foreign.appendEnd(commit: true, xid: 9, time: Timestamp(secondsSince1970: 1_795_000_100))
        try world.write("00000001000000000000000B", foreign.segments[0].bytes, ready: true)
        #expect(try world.refusal() == nil)
        // Next to real WAL the bookkeeping is kept: replay has to go through it.
        let data = Self.segment(9)
        try world.write(data.name, data.bytes)
        let outcome = try world.place.restore(delta: true, request: RestoreRequest(), unarchived: .keep)
        #expect(
            outcome.delta?.unarchived?.wal.files.map(\.name.text)
                == ["000000010000000000000008", "000000010000000000000009"])
        #expect(outcome.delta?.unarchived?.isReplayed == true)
    }

    @Test("each kind of WAL that nobody else has is refused on its own (lesson 6)")
    func kinds() throws {
        let world = try World()
        let unready = Self.segment(8)
        let other = Self.segment(7)
        var cut = Self.shutdown(8).bytes
        cut.removeLast(1000)
        var damaged = Self.shutdown(8).bytes
        damaged[60] ^= 1
        let kinds: [(String, [UInt8], Bool)] = [
            (unready.name, unready.bytes, false),
            // The name is archived, the content is another's; also before or in the backup.
            (other.name, other.bytes, false), (Self.segment(5).name, Self.segment(5).bytes, false),
            // Before the backup: it waits for the archive, or nothing shows that this server went on to the backup.
            (Self.segment(4).name, Self.segment(4).bytes, true), (Self.segment(4).name, Self.segment(4).bytes, false),
            (unready.name + ".partial", unready.bytes, false),
            ("00000002.history", Array("1\t0/800000\tx\n".utf8), false),
            ("000000020000000000000008", Self.segment(8, timeline: 2).bytes, false),
            ("000000010000000000000008", cut, false), ("000000010000000000000008", damaged, false),
            // Nobody can read it, but the server has called it finished WAL.
            ("000000010000000000000008", [UInt8](repeating: 7, count: 1 << 20), true),
        ]
        for (name, bytes, ready) in kinds {
            try world.write(name, bytes, ready: ready)
            let error = try world.refusal(RestoreRequest(target: .immediate))
            #expect(error?.code == .unarchivedWAL, "\(name)")
            #expect(error?.detail?.contains(name) == true, "\(name)")
            try world.clear()
        }
        #expect(try world.refusal(RestoreRequest(target: .immediate)) == nil)
    }

    @Test("WAL that another server wrote on the same timeline is refused, and why, wherever backups start")
    func twin() throws {
        let world = try World()
        let paper = PaperBackup(try world.place.repository.cluster())
        try paper.archive(8...9)
        try Self.commitLater(paper)
        for number in UInt64(6)...8 {
            let segment = Self.segment(number, xid: 950, switched: true)
            try world.write(segment.name, segment.bytes)
        }
        #expect(
            try world.refusal(RestoreRequest(target: .immediate))?.detail == """
                3 WAL files, 000000010000000000000006 to 000000010000000000000008, up to LSN 0/900000: the last \
                commits may be there alone.  A repository has other WAL, or what cannot be compared, under the name \
                of 3 WAL files, 000000010000000000000006 to 000000010000000000000008: two servers may have written the \
                same timeline.
                """)
    }

    /// A backup in segment 9, with the tablespace that every restore of the place maps.
    static func commitLater(_ paper: PaperBackup) throws {
        let start = LSN(9 << 20 | 40)
        var record = CommitRecord.sample(
            try #require(Label("20261122T020000Z-full-late")), start: start, stop: start + 400)
        record.tablespaces = [.init(oid: 16384, path: "/nowhere/else", inPlace: false)]
        let entries =
            PaperEntry.minimal() + [
                PaperEntry("pg_tblspc/16384", .link(Array("/nowhere/else".utf8))),
                PaperEntry("pg_tblspc/16384/\(DeltaPlace.version)", .directory, mode: 0o700),
            ]
        try paper.commit(HostileManifestTests.sorted(entries), as: record, number: 2)
    }

    @Test("what closes a hole in the archive is never removed unasked, and refusals say that pg_wal has it")
    func hole() throws {
        let world = try World()
        let paper = PaperBackup(try world.place.repository.cluster())
        try paper.archive(9...10)
        try Self.commitLater(paper)
        try world.write("000000010000000000000009", Self.archived(9))
        let first = RestoreRequest(
            backup: Label(HostileManifestTests.label), target: .lsn(LSN(10 << 20), exclusive: false))
        func text(_ request: RestoreRequest) throws -> String? {
            try world.refusal(request).map { "\($0.detail ?? "")\n\($0.hint ?? "")" }
        }
        let directory = world.place.target + "/pg_wal"
        #expect(try text(first)?.contains("It is not in \"\(directory)\".") == true)
        let lost = Self.segment(8, switched: true)
        try world.write(lost.name, lost.bytes)
        #expect(
            try text(first) == """
                It is not in the WAL from backup \(HostileManifestTests.label) on: WAL file \(lost.name) is missing, \
                while 000000010000000000000009 is archived. The latest transaction in it ended at \
                \(MemoryRepository.commitTime(7)).  "\(directory)" has it.
                Archive it: "kedge archive-push \(directory)/\(lost.name)".  The nearest moment that can be reached \
                is "--target-lsn 0/700050".
                """)
        // That nearest moment, or the later backup: nothing is missed there, and all the same it is the last copy.
        for request in [
            RestoreRequest(backup: Label(HostileManifestTests.label), target: .immediate),
            RestoreRequest(target: .immediate),
        ] {
            #expect(
                try text(request) == """
                    WAL file \(lost.name), up to LSN 0/900000: the last commits may be there alone.  The archive has a \
                    hole that is closed by WAL file \(lost.name).
                    Archive what closes the hole: "kedge archive-push \(directory)/\(lost.name)".  Add \
                    "--unarchived-wal keep": the files stay in pg_wal, and recovery goes on in them where the archive \
                    ends.  Only if what is in them may be lost: "--unarchived-wal discard".
                    """)
        }
        try paper.archive(.segment(lost.name), lost.bytes)
        #expect(try world.refusal(RestoreRequest(target: .immediate)) == nil)
    }

    @Test("a segment that was not filled is archived if what is archived begins with it, as a partial one or whole")
    func beginnings() throws {
        let world = try World()
        let backup = PaperBackup(try world.place.repository.cluster())
        var builder = WALBuilder(system: SystemIdentifier(7), firstSegment: 8)
        builder.appendEnd(commit: true, xid: 900, time: Timestamp(secondsSince1970: 1_795_000_100))
        let short = builder.segments[0].bytes
        builder.appendEnd(commit: true, xid: 901, time: Timestamp(secondsSince1970: 1_795_000_200))
        let long = builder.segments[0].bytes
        let name = "000000010000000000000008"
        try backup.archive(.partial(name + ".partial"), long)
        for (bytes, isMissed) in [(short, false), (long, false), (Self.segment(8).bytes, true)] {
            for file in [name, name + ".partial"] {
                try world.write(file, bytes)
                #expect(try (world.refusal(RestoreRequest(target: .immediate)) != nil) == isMissed, "\(file)")
                try world.clear()
            }
        }
        // What a restore before this one has placed under the whole name for its own recovery is not refused.
        _ = try world.place.restore(delta: true, request: RestoreRequest(), unarchived: nil)
        #expect(access(world.place.target + "/pg_wal/" + name, F_OK) == 0)
        _ = try world.place.restore(delta: true, request: RestoreRequest(), unarchived: nil)
        // But it cannot be kept beside one that goes on behind it.
        builder.appendEnd(commit: true, xid: 902, time: Timestamp(secondsSince1970: 1_795_000_300))
        try world.write(name, builder.segments[0].bytes)
        let before = try world.place.look()
        let error = #expect(throws: KedgeError.self) {
            _ = try world.place.restore(delta: true, request: RestoreRequest(), unarchived: .keep)
        }
        #expect(error?.code == .usage)
        #expect(try world.place.look() == before)
    }

    @Test("what only a repository has that cannot be read now counts as unarchived, and the refusal names it")
    func awayRepository() throws {
        let world = try World()
        let second = try MemoryRepository(name: "second", walSegmentSize: 1 << 20)
        let data = Self.segment(8, switched: true)
        try PaperBackup(try second.cluster()).archive(.segment(data.name), data.bytes)
        try world.write(data.name, data.bytes)
        let away = RepositorySource(
            settings: second.settings,
            openStore: { () throws(KedgeError) in throw KedgeError(.repositoryUnavailable, "away") },
            createStore: { () throws(KedgeError) in throw KedgeError(.repositoryUnavailable, "away") })
        let request = RestoreRequest(target: .immediate)
        let error = #expect(throws: KedgeError.self) {
            _ = try world.place.restore(
                delta: true, request: request, unarchived: nil, others: [away])
        }
        #expect(error?.code == .unarchivedWAL)
        #expect(error?.detail?.contains("repository \"second\"") == true)
        let outcome = try world.place.restore(
            delta: true, request: request, unarchived: nil, others: [second.source])
        #expect(outcome.delta?.unarchived == nil)
    }

    @Test("behind a link it is found as well; where pg_wal moves, it cannot be kept (lesson 30)")
    func waldir() throws {
        let place = try DeltaPlace(large: false)
        let wal = place.directory("target-wal")
        _ = try place.restore(delta: false, waldir: wal)
        let data = Self.segment(8)
        try place.write(wal + "/" + data.name, data.bytes)
        func attempt(_ choice: UnarchivedWALChoice?, waldir: String) -> ErrorCode? {
            do throws(KedgeError) {
                _ = try place.restore(
                    delta: true, waldir: waldir, request: RestoreRequest(), unarchived: choice)
                return nil
            } catch {
                return error.code
            }
        }
        #expect(attempt(nil, waldir: wal) == .unarchivedWAL)
        #expect(attempt(.keep, waldir: wal) == nil)
        #expect(try FileDescriptor.open(RawPath(wal + "/" + data.name), [.read]).readAll(limit: 1 << 20) == data.bytes)
        // A plain directory that is to become a link.
        let plain = try World()
        try plain.write(data.name, data.bytes)
        let elsewhere = plain.place.directory("elsewhere")
        for (choice, code) in [(nil, ErrorCode.unarchivedWAL), (UnarchivedWALChoice.keep, .usage)] {
            let before = try plain.place.look()
            let error = #expect(throws: KedgeError.self) {
                _ = try plain.place.restore(delta: true, waldir: elsewhere, unarchived: choice)
            }
            #expect(error?.code == code)
            #expect(try plain.place.look() == before)
        }
    }

    @Test("at the end of kept WAL a server can only be promoted")
    func action() throws {
        let world = try World()
        let data = Self.segment(8)
        try world.write(data.name, data.bytes)
        let error = #expect(throws: KedgeError.self) {
            _ = try world.place.restore(
                delta: true, request: RestoreRequest(), unarchived: .keep, action: .pause)
        }
        #expect(error?.code == .usage)
    }
}
