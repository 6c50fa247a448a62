// That a sweep removes what drills left and nothing that they did not make, whatever lies in the directory.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeDrill

@Suite struct ScratchTests {
    private func marker(_ name: ScratchName, isKept: Bool = false) -> ScratchMarker {
        ScratchMarker(
            id: name.id, cluster: "main", host: "there", process: 4711,
            created: Timestamp(secondsSince1970: 1_700_000_000), isKept: isKept)
    }

    @Test("a marker says again what it was given, and a cut one says nothing")
    func markers() throws {
        let name = ScratchName(random: SeededRandom(seed: 1))
        for isKept in [false, true] {
            let bytes = marker(name, isKept: isKept).bytes
            #expect(ScratchMarker(parsing: bytes) == marker(name, isKept: isKept))
            for count in 0..<(bytes.count - 1) { #expect(ScratchMarker(parsing: Array(bytes[..<count])) == nil) }
        }
        #expect(ScratchMarker(parsing: Array("{\"purpose\":\"something else\"}".utf8)) == nil)
    }

    @Test("only names that a drill gives are looked at")
    func names() {
        let name = ScratchName(random: SeededRandom(seed: 2))
        #expect(ScratchName(marker: RawPath(name.marker)) == name)
        let others = [
            "drill-.json", "drill-0123.json", "drill-0123456789ABCDEF.json", "x" + name.marker, name.marker + "~",
            name.directory, "drill-01234567 9abcdef.json",
        ]
        for other in others { #expect(ScratchName(marker: RawPath(other)) == nil, "\(other)") }
    }

    @Test("10000 generated states: what is alive, kept, foreign or unmarked is never removed")
    func decisions() {
        let random = SeededRandom(seed: testSeed())
        for _ in 0..<10_000 {
            func coin() -> Bool { random.next(below: 2) == 0 }
            let name = ScratchName(random: random)
            let found: ScratchMarker? =
                switch random.next(below: 3) {
                case 0: nil
                case 1: marker(name, isKept: coin())
                default: marker(ScratchName(random: random), isKept: coin())
                }
            let (isLocked, hasDirectory, includesKept) = (coin(), coin(), coin())
            let action = ScratchAction.decide(
                name, marker: found, isLocked: isLocked, hasDirectory: hasDirectory, includesKept: includesKept)
            let isOurs = found?.id == name.id
            let mayGo = !isLocked && isOurs && (includesKept || found?.isKept == false)
            #expect((action == .remove) == mayGo)
            if action == .removeMarker { #expect(!isLocked && found == nil && !hasDirectory) }
        }
    }

    @Test("a sweep removes the dead, with links unfollowed, and leaves everything else as it was")
    func sweep() throws {
        let (directory, outside) = (try TemporaryDirectory(), try TemporaryDirectory())
        let time = SystemTimeSource()
        let random = SeededRandom(seed: testSeed())
        let parent = RawPath(directory.path)
        func make() throws -> ScratchDirectory {
            try ScratchDirectory(
                below: parent, cluster: "main", host: "here", process: 1, time: time, random: random)
        }
        func write(_ path: RawPath) throws {
            try FileDescriptor.open(path, [.write, .create]).write([1], at: 0)
        }
        try write(RawPath(outside("precious")))
        let alive = try make()
        let dead = try make().path
        try write(dead.appending("file"))
        _ = try Directory.create(at: dead.appending("deep"))
        try FileSystem.createSymbolicLink(at: dead.appending("deep/link"), target: RawPath(outside.path))
        try FileSystem.createSymbolicLink(at: dead.appending("dangling"), target: "/nowhere")
        let kept: RawPath
        do {
            let scratch = try make()
            kept = scratch.path
            try scratch.keep()
        }
        // Nobody's, though they look like it.
        let stranger = ScratchName(random: random)
        _ = try Directory.create(at: parent.appending(stranger.directory))
        let foreign = ScratchName(random: random)
        _ = try Directory.create(at: parent.appending(foreign.directory))
        try write(parent.appending(foreign.marker))
        try write(parent.appending("something.json"))

        let found = try ScratchDirectory.sweep(parent, includesKept: false, time: time)
        #expect(found.map(\.action).filter { $0 == .remove }.count == 1)
        #expect(try !FileSystem.exists(dead))
        let left = [
            alive.path, kept, parent.appending(stranger.directory), parent.appending(foreign.directory),
            parent.appending(foreign.marker), parent.appending("something.json"), RawPath(outside("precious")),
        ]
        for path in left { #expect(try FileSystem.exists(path), "\(path)") }

        _ = try ScratchDirectory.sweep(parent, includesKept: true, time: time)
        #expect(try !FileSystem.exists(kept))
        #expect(try FileSystem.exists(alive.path))
        try alive.remove(time: time)
        #expect(try Directory.entries(at: parent).count == 4)
    }

    @Test("a marker whose maker died before it made the directory goes; a path too long for a socket gets a short one")
    func edges() throws {
        let directory = try TemporaryDirectory()
        let random = SeededRandom(seed: testSeed())
        let name = ScratchName(random: random)
        try FileDescriptor.open(RawPath(directory(name.marker)), [.write, .create]).write(Array("{\"pur".utf8), at: 0)
        #expect(
            try ScratchDirectory.sweep(RawPath(directory.path), includesKept: false, time: SystemTimeSource())
                .map(\.action) == [.removeMarker])
        let deep = RawPath(directory(String(repeating: "long", count: 20)))
        _ = try Directory.create(at: deep)
        let scratch = try ScratchDirectory(
            below: deep, cluster: "main", host: "here", process: 1, time: SystemTimeSource(), random: random)
        #expect(scratch.socketDirectory == scratch.name.shortSocketDirectory)
        #expect(try FileSystem.exists(scratch.socketDirectory))
        try scratch.remove(time: SystemTimeSource())
        #expect(try !FileSystem.exists(scratch.name.shortSocketDirectory))
        #expect(try Directory.entries(at: deep).isEmpty)
    }
}
