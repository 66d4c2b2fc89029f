import { type FormEvent, useState } from "react";
import { Link } from "react-router";
import { useSelect, useStore } from "../context/AuthContext";
import { useAction } from "../hooks/useAction";
import { Dialog } from "./Dialog";
import { Field, Problem } from "./Field";

interface Closing {
  onClose: () => void;
  /** It is there; gets its id. */
  onDone: (id: string) => void;
}

/** Asks for a name, and makes something of it. */
function NameForm({
  label,
  placeholder,
  create,
  onDone,
}: {
  label: string;
  placeholder: string;
  create: (name: string) => Promise<string>;
  onDone: (id: string) => void;
}) {
  const [name, setName] = useState("");
  const { run, busy, error } = useAction(async () => onDone(await create(name.trim())));
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void run();
  };
  return (
    <form onSubmit={submit} aria-busy={busy}>
      <Field
        label={label}
        placeholder={placeholder}
        hint="2 to 100 characters."
        value={name}
        onChange={(event) => setName(event.target.value)}
        maxLength={200}
        autoComplete="off"
        required
      />
      <Problem text={error} />
      <button type="submit" className="primary wide" disabled={busy || [...name.trim()].length < 2}>
        {busy ? "One moment…" : "Create"}
      </button>
    </form>
  );
}

export function CreateGuildDialog({ onClose, onDone }: Closing) {
  const { sdk } = useStore();
  return (
    <Dialog title="Create a guild" onClose={onClose}>
      <p className="lead">A guild is a place with channels. Others find it in the list and join.</p>
      <NameForm
        label="Name"
        placeholder="Friends of the sea"
        create={async (name) => (await sdk.createGuild(name)).guildId}
        onDone={onDone}
      />
      <p className="footer">
        Looking for one that is there?{" "}
        <Link to="/discover" onClick={onClose}>
          Find guilds
        </Link>
      </p>
    </Dialog>
  );
}

export function CreateChannelDialog({ guildId, onClose, onDone }: Closing & { guildId: string }) {
  const { sdk } = useStore();
  return (
    <Dialog title="Create a channel" onClose={onClose}>
      <NameForm
        label="Name"
        placeholder="general"
        create={async (name) => (await sdk.createChannel(guildId, name)).channelId}
        onDone={onDone}
      />
    </Dialog>
  );
}

export function LeaveGuildDialog({ guildId, onClose, onDone }: Closing & { guildId: string }) {
  const { sdk } = useStore();
  const name = useSelect((state) => state.guilds?.find((guild) => guild.guildId === guildId)?.name);
  const { run, busy, error } = useAction(async () => {
    await sdk.leave(guildId);
    onDone(guildId);
  });
  return (
    <Dialog title="Leave this guild?" onClose={onClose}>
      <p className="lead">
        You will no longer see <bdi className="strong">{name}</bdi> and its messages. If it is public, you can join it
        again.
      </p>
      <Problem text={error} />
      <div className="buttons">
        <button type="button" onClick={onClose}>
          Stay
        </button>
        <button type="button" className="danger" disabled={busy} onClick={() => void run()}>
          Leave
        </button>
      </div>
    </Dialog>
  );
}
