# Objects of a tenant: how they are kept, found and shown.

# A list of text as the service gives it back: a list also when it has one member.
function ConvertTo-StandInList {
    param($Value)
    $list = [System.Collections.ArrayList]::new()
    foreach ($one in @($Value)) { if ($null -ne $one -and '' -ne [string]$one) { [void]$list.Add([string]$one) } }
    , $list
}

# What a MultiValuedProperty becomes: a list replaces, @{Add = ..; Remove = ..} changes.
function Merge-StandInList {
    param($Old, $New)
    $table = $null
    foreach ($one in @($New)) { if ($one -is [System.Collections.IDictionary]) { $table = $one } }
    if ($null -eq $table) { return , (ConvertTo-StandInList $New) }
    $list = ConvertTo-StandInList $Old
    foreach ($key in $table.Keys) {
        foreach ($one in @($table[$key])) {
            if ($key -eq 'Add') { if ($list -notcontains [string]$one) { [void]$list.Add([string]$one) } }
            elseif ($key -eq 'Remove') { $list = ConvertTo-StandInList @($list | Where-Object { $_ -ne [string]$one }) }
            else { throw (New-StandInFailure -Kind 'Arguments' -Message "'$key' is not a change of a list: use Add or Remove") }
        }
    }
    , $list
}

# A copy to hand out, so that nobody changes the tenant by changing what Get- gave him.
function Show-StandInObject {
    param($Tenant, $Stored, [string[]]$Text = @())
    $shown = [ordered]@{}
    foreach ($key in $Stored.Keys) {
        $value = $Stored[$key]
        if ($null -eq $value -or '' -eq $value) { if ($Text -contains $key) { $value = $Tenant.UnsetText } }
        elseif ($value -is [System.Collections.IList]) { $value = ConvertTo-StandInList $value }
        $shown[$key] = $value
    }
    [pscustomobject]$shown
}

function Find-StandInObject {
    param($List, $Identity, [string]$What)
    foreach ($one in $List) {
        foreach ($key in 'Name', 'Guid', 'Identity', 'DistinguishedName', 'ImmutableId') {
            if ($one.Contains($key) -and [string]$one[$key] -eq [string]$Identity) { return $one }
        }
    }
    throw (New-StandInFailure -Kind 'ManagementObjectNotFoundException' -Message "The operation couldn't be performed because object '$Identity' couldn't be found ($What).")
}

function Assert-StandInName {
    param($List, [string]$Name, $Self)
    if ($Name.Length -eq 0 -or $Name.Length -gt 64) { throw (New-StandInFailure -Kind 'ParameterBindingValidation' -Message "The name '$Name' must have 1 to 64 characters") }
    foreach ($one in $List) {
        if ($one.Name -eq $Name -and -not [object]::ReferenceEquals($one, $Self)) {
            throw (New-StandInFailure -Kind 'ADObjectAlreadyExistsException' -Message "The name '$Name' is already in use: choose another one")
        }
    }
}

# A tenant that was never changed must be opened up first, once, for its own configuration.
function Assert-StandInHydrated {
    param($Tenant)
    if ($Tenant.OrganizationConfig['IsDehydrated']) {
        throw (New-StandInFailure -Kind 'InvalidOperationInDehydratedContextException' -Message 'This command is not allowed in your organization yet: run Enable-OrganizationCustomization first')
    }
}

# Names of the properties whose unset value may come back as '' or as nothing.
$script:ConnectorText = @('Comment', 'TlsSenderCertificateName', 'TlsDomain', 'TlsSettings', 'ValidationRecipients')

function New-StandInStamp {
    param([string]$Name)
    $guid = [guid]::NewGuid().ToString()
    [ordered]@{ Name = $Name; Identity = $Name; Guid = $guid; DistinguishedName = "CN=$Name,CN=Transport Settings,CN=Configuration,DC=standin"; WhenCreatedUTC = $script:World.Clock; WhenChangedUTC = $script:World.Clock; IsValid = $true }
}
