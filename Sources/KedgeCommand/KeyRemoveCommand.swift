// `kedge key remove`.
import KedgeCatalog
import KedgeCodec
import KedgeCore

/// The command line of `key remove`.
enum KeyRemoveCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "key remove", summary: "take a key slot away",
        description: [
            "Removes one slot, or all slots of a label. Refused where a data key that anything needs could not be "
                + "opened "
                + "any more, or not with the configured secret. Where no slot of a data key would be left, the headers "
                + "of all objects are read first: one short read for each.",
            "A slot that is gone here may be left in copies of the repository, and in the records of backups. If the "
                + "secret may be known to somebody, run key rotate as well.",
        ],
        options: [
            .value("slot", "SLOT", "Remove the slot of this id, as key list shows it."),
            .value("label", "NAME", "Remove all slots of this label."),
            .flag(
                "allow-lockout",
                "Remove it even if the configured secret then no longer opens a data key. Other slots must be left, or "
                    + "the key proven to be unused."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let selection: KeyRemovalPlan.Selection
        switch (context.arguments.value("slot"), context.arguments.value("label")) {
        case (let slot?, nil): selection = .slot(slot)
        case (nil, let label?): selection = .label(label)
        default:
            throw KedgeError(
                .usage, "cannot tell which key slot to remove", hint: "Give exactly one of --slot and --label.")
        }
        let configuration = try context.loadConfiguration()
        let repository = try configuration.repository()
        let outcome = try KeyRemove(
            context.source(of: repository), selection, mayLockOut: context.arguments.has("allow-lockout"),
            time: context.surroundings.time
        ).run()
        var lines = outcome.removed.map { slot in
            "removed slot \(slot.id)\(slot.label.isEmpty ? "" : " \"\(slot.label)\"") of data key \(slot.key.sequence)"
        }
        for sequence in outcome.dropped { lines.append("dropped data key \(sequence): nothing needed it") }
        return CommandResult(
            lines: lines,
            json: [
                "repository": .string(repository.name),
                "removed": .array(outcome.removed.map { .string($0.id) }),
                "dropped": .array(outcome.dropped.map { .int($0) }),
            ])
    }
}
