// The page's accessible names. They are part of its interface: scripts of others find its parts by them.

/** Everything that has a name, on one page. */
export function names(page) {
  const by = (role, name, scope = page) => scope.getByRole(role, {name, exact: true});
  const dialog = by('dialog', 'Picture');
  const list = by('list', 'Pictures');
  return {
    token: by('textbox', 'Token'),
    remember: by('checkbox', 'Remember on this device'),
    signInButton: by('button', 'Sign in'),
    signOutButton: by('button', 'Sign out'),

    make: by('link', 'Make'),
    gallery: by('link', 'Gallery'),
    status: by('link', 'Status'),

    prompt: by('textbox', 'Prompt'),
    negativePrompt: by('textbox', 'Negative prompt'),
    model: by('combobox', 'Model'),
    size: by('combobox', 'Size'),
    steps: by('spinbutton', 'Steps'),
    seed: by('spinbutton', 'Seed'),
    pictures: by('spinbutton', 'Pictures'),
    generate: by('button', 'Generate'),
    cancel: by('button', 'Cancel'),
    progress: by('progressbar', 'Progress'),
    addReference: by('button', 'Add reference'),
    paintMask: by('button', 'Paint mask'),

    results: by('list', 'Results'),
    openPicture: by('link', 'Open picture'),

    list,
    links: list.getByRole('link'),
    dialog,
    makeAgain: by('button', 'Make again', dialog),
    copyAsCurl: by('button', 'Copy as curl', dialog),
    useAsReference: by('button', 'Use as reference', dialog),
    remove: by('button', 'Delete', dialog),

    card: by('region', 'Card'),
    readiness: by('status', 'Readiness'),
    connection: page.locator('#connection'),
    alert: page.getByRole('alert'),
  };
}
